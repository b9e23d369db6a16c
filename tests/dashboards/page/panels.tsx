// The panels: Grafana's own components (@grafana/ui) behind Grafana's own field configuration. Stand in for the panel plugins, which
// are not libraries. The heatmap, which the libraries lack, is drawn here.
//
// Each says what it shows in `shown`, so that a test can judge it: how many series, and for values their text and colour.
import React from 'react';
import {
  DisplayValue,
  FieldConfigProperty,
  PanelPlugin,
  PanelProps,
  VizOrientation,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  standardEditorsRegistry,
  standardFieldConfigEditorRegistry,
} from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, VizRepeater, useTheme2 } from '@grafana/ui';

export interface Shown {
  kind: string;
  series: number;
  points: number;
  values: Array<{ title: string; text: string; color: string }>;
  noValue: string;
}
export const shown: Record<string, Shown> = {};

// What Grafana's panel options default to where a dashboard says nothing.
const TIMESERIES_DEFAULTS = {
  drawStyle: 'line',
  lineInterpolation: 'linear',
  lineWidth: 1,
  fillOpacity: 0,
  gradientMode: 'none',
  showPoints: 'auto',
  pointSize: 5,
  stacking: { mode: 'none', group: 'A' },
  axisPlacement: 'auto',
  axisLabel: '',
  axisColorMode: 'text',
  axisBorderShow: false,
  axisCenteredZero: false,
  scaleDistribution: { type: 'linear' },
  spanNulls: false,
  hideFrom: { tooltip: false, viz: false, legend: false },
  thresholdsStyle: { mode: 'off' },
  barAlignment: 0,
  barWidthFactor: 0.6,
  insertNulls: false,
};

const option = (id: string, extra: object = {}): any => ({
  id,
  path: id,
  name: id,
  override: () => null,
  editor: () => null,
  process: (value: any) => value,
  shouldApply: () => true,
  settings: {},
  ...extra,
});

export function registerStandardOptions(): void {
  const editors = ['number', 'text', 'boolean', 'color', 'select', 'unit', 'links', 'multi-select', 'thresholds', 'mappings', 'slider'];
  standardEditorsRegistry.setInit(() => editors.map((id) => ({ id, name: id, editor: () => null })) as any);
  standardFieldConfigEditorRegistry.setInit(() => [
    ...['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'links', 'fieldMinMax', 'filterable'].map((id) => option(id)),
    option('color', { defaultValue: { mode: 'thresholds' } }),
    option('mappings', { defaultValue: [] }),
    // Grafana's own default, which made a version above 80 red
    option('thresholds', { defaultValue: { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }, { value: 80, color: 'red' }] } }),
  ]);
}

function record(panel: PanelProps<any>, kind: string, values: DisplayValue[] = []): void {
  const points = panel.data.series.reduce((sum, frame) => sum + frame.length, 0);
  shown[panel.title] = {
    kind,
    series: panel.data.series.length,
    points,
    values: values.map((value) => ({
      title: value.title ?? '',
      text: `${value.prefix ?? ''}${value.text}${value.suffix ?? ''}`,
      color: value.color ?? '',
    })),
    noValue: panel.fieldConfig.defaults.noValue ?? '',
  };
}

const Nothing = ({ panel }: { panel: PanelProps<any> }) => (
  <div style={{ width: panel.width, height: panel.height, display: 'flex', alignItems: 'center', justifyContent: 'center', opacity: 0.6 }}>
    {panel.fieldConfig.defaults.noValue ?? 'No data'}
  </div>
);

const isEmpty = (panel: PanelProps<any>) => !panel.data.series.some((frame) => frame.length > 0);

function useDisplayValues(panel: PanelProps<any>) {
  const theme = useTheme2();
  const reduceOptions = { calcs: ['lastNotNull'], ...panel.options.reduceOptions };
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions,
    replaceVariables: panel.replaceVariables,
    theme,
    data: panel.data.series,
    timeZone: 'utc',
  } as any);
}

function Series(panel: PanelProps<any>) {
  record(panel, 'timeseries');
  if (isEmpty(panel)) {
    return <Nothing panel={panel} />;
  }
  const legend = { calcs: [], displayMode: 'list', placement: 'bottom', showLegend: true, ...panel.options.legend };
  return (
    <TimeSeries
      frames={panel.data.series.filter((frame) => frame.length > 0)}
      structureRev={panel.data.structureRev}
      timeRange={panel.timeRange}
      timeZone="utc"
      width={panel.width}
      height={panel.height}
      legend={legend}
      options={panel.options}
    />
  );
}

function Stat(panel: PanelProps<any>) {
  const theme = useTheme2();
  const values = useDisplayValues(panel);
  record(panel, 'stat', isEmpty(panel) ? [] : values.map((value) => value.display));
  if (isEmpty(panel)) {
    return <Nothing panel={panel} />;
  }
  const { colorMode, graphMode, textMode } = panel.options;
  return (
    <VizRepeater
      getValues={() => values}
      renderValue={({ value, width, height, count }: any) => (
        <BigValue {...{ colorMode, graphMode, textMode, width, height, theme, count }} value={value.display} justifyMode={'auto' as any} />
      )}
      width={panel.width}
      height={panel.height}
      source={panel.data}
      renderCounter={panel.renderCounter}
      orientation={VizOrientation.Auto}
      autoGrid
    />
  );
}

function Bars(panel: PanelProps<any>) {
  const theme = useTheme2();
  const values = useDisplayValues(panel);
  record(panel, 'bargauge', isEmpty(panel) ? [] : values.map((value) => value.display));
  if (isEmpty(panel)) {
    return <Nothing panel={panel} />;
  }
  return (
    <VizRepeater
      getValues={() => values}
      renderValue={({ value, width, height, orientation, alignmentFactors }: any) => (
        <BarGauge
          {...{ width, height, orientation, theme, alignmentFactors }}
          value={value.display}
          field={value.field}
          displayMode={panel.options.displayMode}
          itemSpacing={10}
          lcdCellWidth={12}
        />
      )}
      width={panel.width}
      height={panel.height}
      source={panel.data}
      itemSpacing={8}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderCounter={panel.renderCounter}
      orientation={panel.options.orientation}
    />
  );
}

/** Buckets of a Prometheus histogram, which count up to their bound, over time: the darker, the more fell between two bounds. */
function Heatmap(panel: PanelProps<any>) {
  record(panel, 'heatmap');
  const bounds = panel.data.series.map((frame) => [Number((frame.fields[1].labels?.le ?? '').replace('+Inf', 'Infinity')), frame] as const);
  if (!bounds.length) {
    return <Nothing panel={panel} />;
  }
  bounds.sort(([a], [b]) => a - b);
  const times: number[] = bounds[bounds.length - 1][1].fields[0].values;
  const at = bounds.map(([, frame]) => new Map<number, number>(frame.fields[0].values.map((time: number, i: number) => [time, frame.fields[1].values[i]])));
  const between = at.map((bucket, i) => times.map((time) => Math.max(0, (bucket.get(time) ?? 0) - (i ? at[i - 1].get(time) ?? 0 : 0))));
  const most = Math.max(1e-9, ...between.flat());
  const [label, bottom] = [40, 16];
  const [from, to] = [panel.timeRange.from.valueOf(), panel.timeRange.to.valueOf()];
  const wide = Math.max(1, ((panel.width - label) * (times[1] - times[0] || 1)) / (to - from));
  const high = (panel.height - bottom) / bounds.length;
  return (
    <svg width={panel.width} height={panel.height} fontSize={11} fill="currentColor">
      {between.map((row, i) => (
        <g key={i} transform={`translate(0 ${panel.height - bottom - (i + 1) * high})`}>
          <text x={label - 6} y={high / 2 + 4} textAnchor="end" opacity={0.7}>
            {bounds[i][0] === Infinity ? '+Inf' : bounds[i][0]}
          </text>
          {row.map((count, j) => (
            <rect
              key={j}
              x={label + ((panel.width - label) * (times[j] - from)) / (to - from)}
              width={wide + 0.5}
              height={high - 1}
              fill="#ff780a"
              opacity={count / most}
            />
          ))}
        </g>
      ))}
    </svg>
  );
}

function plugin(id: string, component: any, timeseries = false): PanelPlugin<any> {
  const made = new PanelPlugin<any>(component);
  made.meta = { id, name: id, sort: 0, info: { version: '1' }, type: 'panel', module: '', baseUrl: '' } as any;
  made.useFieldConfig({
    useCustomConfig: (builder: any) => {
      for (const [key, defaultValue] of Object.entries(TIMESERIES_DEFAULTS)) {
        builder.addCustomEditor(option(key, { defaultValue }));
      }
    },
    ...(timeseries ? { standardOptions: { [FieldConfigProperty.Color]: { defaultValue: { mode: 'palette-classic' } } } } : {}),
  } as any);
  return made;
}

export const plugins: Record<string, PanelPlugin<any>> = {
  timeseries: plugin('timeseries', Series, true),
  stat: plugin('stat', Stat),
  bargauge: plugin('bargauge', Bars),
  heatmap: plugin('heatmap', Heatmap),
};
