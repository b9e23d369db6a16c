// The data source: PromQL to Grafana's data frames. Stands in for Grafana's Prometheus plugin, which is not a library.
import { DataFrame, DataSourceApi, FieldType, LoadingState, toDataFrame } from '@grafana/data';
import { Observable } from 'rxjs';

const SERVER = '/prometheus/api/v1/';
const STEP_SECONDS = 5;
// Grafana's: at least four scrapes, so that a rate has points enough.
const RATE_INTERVAL = '30s';

export const META: any = {
  id: 'prometheus',
  name: 'Prometheus',
  type: 'datasource',
  info: { logos: { small: '', large: '' } },
  module: '',
  baseUrl: '',
};
export const SETTINGS: any = { id: 1, uid: 'prom', name: 'prom', type: 'prometheus', meta: META, jsonData: {}, readOnly: true, access: 'proxy' };

/** Queries asked and not answered yet, and what went wrong: whoever takes the picture waits for the one and reports the other. */
export const state = { asked: 0, answered: 0, errors: [] as string[] };

async function get(path: string, parameters: Record<string, string>): Promise<any> {
  const response = await fetch(SERVER + path + '?' + new URLSearchParams(parameters));
  const body = await response.json();
  if (body.status !== 'success') {
    throw new Error(`${parameters.query ?? path}: ${body.error}`);
  }
  return body.data;
}

function named(legend: string | undefined, labels: Record<string, string>): string | undefined {
  return !legend || legend === '__auto' ? undefined : legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, key) => labels[key] ?? '');
}

function frame(target: any, labels: Record<string, string>, points: Array<[number, string]>): DataFrame {
  const name = named(target.legendFormat, labels);
  return toDataFrame({
    refId: target.refId,
    name,
    fields: [
      { name: 'Time', type: FieldType.time, values: points.map(([at]) => at * 1000) },
      {
        name: 'Value',
        type: FieldType.number,
        labels,
        values: points.map(([, value]) => parseFloat(value)),
        config: name ? { displayNameFromDS: name } : {},
      },
    ],
  });
}

export class Prometheus extends DataSourceApi<any, any> {
  constructor(private interpolate: (text: string, scoped: any) => string) {
    super(SETTINGS);
  }

  query(request: any): any {
    state.asked += 1;
    return new Observable((subscriber) => {
      this.answer(request)
        .then((data) => subscriber.next({ data, state: LoadingState.Done, key: request.requestId }))
        .catch((error) => {
          state.errors.push(String(error));
          subscriber.next({ data: [], state: LoadingState.Error, errors: [{ message: String(error) }] });
        })
        .finally(() => {
          state.answered += 1;
          subscriber.complete();
        });
    }) as any;
  }

  private async answer(request: any): Promise<DataFrame[]> {
    const [start, end] = [request.range.from, request.range.to].map((time) => time.valueOf() / 1000);
    const step = Math.max(STEP_SECONDS, Math.round((end - start) / 200));
    const frames: DataFrame[] = [];
    for (const target of request.targets) {
      const query = this.interpolate(target.expr, request.scopedVars)
        .replace(/\$__rate_interval/g, RATE_INTERVAL)
        .replace(/\$__interval/g, `${step}s`);
      if (target.instant) {
        const { result } = await get('query', { query, time: String(end) });
        frames.push(...result.map((series: any) => frame(target, series.metric, [series.value])));
      } else {
        const { result } = await get('query_range', { query, start: String(start), end: String(end), step: String(step) });
        frames.push(...result.map((series: any) => frame(target, series.metric, series.values)));
      }
    }
    return frames;
  }

  async metricFindQuery(asked: any, options: any): Promise<any[]> {
    const text = this.interpolate(typeof asked === 'string' ? asked : asked.query, options?.scopedVars);
    const [, match, label] = /^label_values\((.*),\s*(\w+)\)$/s.exec(text) ?? [];
    const values: string[] = label ? await get(`label/${label}/values`, { 'match[]': match }) : [];
    return values.map((value) => ({ text: value, value }));
  }

  async testDatasource(): Promise<any> {
    return { status: 'success', message: '' };
  }
}
