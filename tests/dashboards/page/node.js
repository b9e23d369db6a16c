// What Grafana's libraries expect of Node, in a browser.
export const process = { env: {}, version: '', cwd: () => '/', nextTick: (call, ...rest) => setTimeout(() => call(...rest)) };
export const Buffer = undefined;
