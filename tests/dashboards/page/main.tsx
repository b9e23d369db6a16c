// Lays a dashboard's JSON out with @grafana/scenes, as Grafana does. `window.asked` says which dashboard, of which job, when.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { MemoryRouter } from 'react-router-dom';
import { EventBusSrv, ThemeContext, createTheme, setTimeZoneResolver, standardTransformersRegistry } from '@grafana/data';
import * as runtime from '@grafana/runtime';
import {
  DataSourceVariable,
  EmbeddedScene,
  QueryVariable,
  SceneGridItem,
  SceneGridLayout,
  SceneGridRow,
  SceneQueryRunner,
  SceneTimeRange,
  SceneVariableSet,
  VariableValueSelectors,
  VizPanel,
  sceneGraph,
} from '@grafana/scenes';
import { GlobalStyles } from '@grafana/ui';
import { Observable, of } from 'rxjs';
import { plugins, registerStandardOptions, shown } from './panels';
import { Prometheus, SETTINGS, state } from './prometheus';

declare const window: any;
const { dashboard, variables, from, to, mode, title } = window.asked;
const ROW_PIXELS = 38;

let scene: EmbeddedScene;
const interpolate = (text: string, scoped?: any, format?: any) =>
  text === undefined ? '' : scene ? sceneGraph.interpolate(scene, text, scoped, format) : text;
const source = new Prometheus(interpolate);
const theme = createTheme({ colors: { mode } });

// --- what the libraries ask of the application around them
runtime.setDataSourceSrv({ get: async () => source, getList: () => [SETTINGS], getInstanceSettings: () => SETTINGS, reload() {} } as any);
runtime.setTemplateSrv({ replace: interpolate, getVariables: () => [], containsTemplate: () => false, updateTimeRange() {} } as any);
runtime.setBackendSrv({ get: async () => ({}), post: async () => ({}), fetch: () => of({ data: {} }) } as any);
runtime.setRunRequest(
  (asked: any, request: any) =>
    new Observable((subscriber) => {
      const running = asked.query(request).subscribe({
        next: (answer: any) => subscriber.next({ state: answer.state, errors: answer.errors, series: answer.data, timeRange: request.range, request } as any),
      });
      return () => running.unsubscribe();
    }) as any
);
runtime.setPluginImportUtils({
  importPanelPlugin: async (id: string) => {
    if (!plugins[id]) {
      state.errors.push(`no panel of kind ${id}`);
    }
    return plugins[id];
  },
  getPanelPluginFromCache: (id: string) => plugins[id],
} as any);
const hooks = runtime as any;
hooks.setPluginLinksHook?.(() => ({ links: [], isLoading: false }));
hooks.setPluginExtensionsHook?.(() => ({ extensions: [], isLoading: false }));
hooks.setPluginComponentHook?.(() => ({ component: null, isLoading: false }));
hooks.setReturnToPreviousHook?.(() => () => {});
hooks.setAppEvents?.(new EventBusSrv());
Object.assign(runtime.config as any, {
  theme2: theme,
  panels: Object.fromEntries(Object.entries(plugins).map(([id, plugin]) => [id, plugin.meta])),
  featureToggles: {},
  bootData: { user: { timezone: 'utc', orgId: 1 }, settings: {}, navTree: [] },
});
registerStandardOptions();
standardTransformersRegistry.setInit(() => []);
setTimeZoneResolver(() => 'utc');

// --- the dashboard, as its JSON says
const prom = { uid: 'prom', type: 'prometheus' };

function panelItem(panel: any): SceneGridItem {
  const { title, description, type, options, fieldConfig, targets, gridPos } = panel;
  return new SceneGridItem({
    x: gridPos.x,
    y: gridPos.y,
    width: gridPos.w,
    height: gridPos.h,
    body: new VizPanel({
      title,
      description,
      pluginId: type,
      options,
      fieldConfig,
      $data: new SceneQueryRunner({ queries: targets, datasource: prom, maxDataPoints: 200 }),
    }),
  });
}

function rows(panels: any[]): any[] {
  const items: any[] = [];
  let row: SceneGridRow | null = null;
  for (const panel of panels) {
    if (panel.type === 'row') {
      row = new SceneGridRow({ title: panel.title, x: 0, y: panel.gridPos.y, width: 24, height: 1, isCollapsed: false, children: [] } as any);
      items.push(row);
    } else if (row) {
      row.setState({ children: [...row.state.children, panelItem(panel)] });
    } else {
      items.push(panelItem(panel));
    }
  }
  return items;
}

function variable(made: any): any {
  if (made.type === 'datasource') {
    return new DataSourceVariable({ name: made.name, label: made.label, pluginId: made.query, value: 'prom', text: 'prom' });
  }
  const chosen = variables[made.name];
  const { name, label, query, refresh, sort, multi, includeAll } = made;
  return new QueryVariable({ name, label, query, refresh, sort, isMulti: multi, includeAll, datasource: prom, value: chosen, text: chosen });
}

scene = new EmbeddedScene({
  $timeRange: new SceneTimeRange({ from, to }),
  $variables: new SceneVariableSet({ variables: dashboard.templating.list.map(variable) }),
  controls: [new VariableValueSelectors({})],
  body: new SceneGridLayout({ children: rows(dashboard.panels), isLazy: false } as any),
});

class Caught extends React.Component<React.PropsWithChildren> {
  state = { failed: false };
  static getDerivedStateFromError() {
    return { failed: true };
  }
  componentDidCatch(error: Error) {
    state.errors.push(String(error.stack ?? error));
  }
  render() {
    return this.state.failed ? null : this.props.children;
  }
}

const deepest = Math.max(...dashboard.panels.map((panel: any) => panel.gridPos.y + panel.gridPos.h));
const style: React.CSSProperties = {
  width: 1600,
  height: 130 + ROW_PIXELS * deepest,
  padding: 12,
  display: 'flex',
  flexDirection: 'column',
  background: theme.colors.background.canvas,
  color: theme.colors.text.primary,
};
document.body.style.background = theme.colors.background.canvas;
createRoot(document.getElementById('root')!).render(
  <Caught>
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <MemoryRouter>
        <div style={style}>
          <h2>
            {dashboard.title}: {title}
          </h2>
          <scene.Component model={scene} />
        </div>
      </MemoryRouter>
    </ThemeContext.Provider>
  </Caught>
);

const panels = dashboard.panels.filter((panel: any) => panel.type !== 'row').length;
window.state = () => ({ ...state, shown, complete: Object.keys(shown).length === panels && state.answered === state.asked && state.asked >= panels });
