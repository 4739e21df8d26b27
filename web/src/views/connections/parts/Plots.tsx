/** The metrics of a connection over one time. A click on a point, or Enter, leads to its line. A chunk of its own, with uPlot. */
import { useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useTheme, useZone } from "../../../app/theme";
import { tickText } from "../../../logs/times";
import { shownCount } from "../../../shared/times";
import { plotted, sharedRange, shownValue } from "../engine/figures";
import { METRICS, type Series, type Side, useSeries } from "../queries";

const HEIGHT_PX = 96;

export interface PlotPoint {
  side: Side;
  time: string;
  line: number;
}

export default function Plots({ id, onPoint }: { id: string; onPoint: (point: PlotPoint) => void }) {
  const found = useSeries(id);
  const isReady = found.every(({ isPending }) => !isPending);
  if (!isReady) return null;
  const range = sharedRange(found.map(({ data }) => data?.points ?? []));
  return (
    <div className="plots">
      {METRICS.map(({ metric, name }, index) => {
        const series = found[index]?.data;
        return (
          <figure key={metric} className="plot">
            <figcaption>
              {name}
              {series !== undefined && series.count > 0 && (
                <span className="muted"> {shownCount(series.count)} points</span>
              )}
            </figcaption>
            {series === undefined ? (
              <p className="muted plot-none">could not be asked</p>
            ) : series.points.length === 0 || range === null ? (
              <p className="muted plot-none">not in these logs</p>
            ) : (
              <Plot id={id} name={name} series={series} range={range} onPoint={onPoint} />
            )}
          </figure>
        );
      })}
    </div>
  );
}

function Plot({
  id,
  name,
  series,
  range,
  onPoint,
}: {
  id: string;
  name: string;
  series: Series;
  range: [number, number];
  onPoint: (point: PlotPoint) => void;
}) {
  const place = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  const zone = useZone();
  const [shown, setShown] = useState<number | null>(null);
  const points = plotted(series.points);
  const side = (series.side ?? "server") as Side;
  const choose = useRef<(index: number | null) => void>(() => undefined);
  choose.current = (index) => {
    const line = index === null ? undefined : points.lines[index];
    const time = index === null ? undefined : points.moments[index];
    if (line !== undefined && time !== undefined) onPoint({ side, time, line });
  };
  const [first, last] = range;

  // biome-ignore lint/correctness/useExhaustiveDependencies: the theme changes what colours are read
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const colour = (token: string) => {
      element.style.color = `var(${token})`;
      return getComputedStyle(element).color;
    };
    const [text, line, accent] = [colour("--text-muted"), colour("--line"), colour("--accent")];
    const axis = { stroke: text, font: "11px system-ui" };
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT_PX,
        padding: [6, 8, 0, 0],
        legend: { show: false },
        tzDate: (s) => (zone === "UTC" ? uPlot.tzDate(new Date(s * 1_000), "Etc/UTC") : new Date(s * 1_000)),
        cursor: { y: false, drag: { x: false, y: false }, sync: { key: `connection ${id}` }, focus: { prox: 1e6 } },
        scales: { x: { time: true, range: () => [first, last] } },
        axes: [
          {
            ...axis,
            grid: { show: false },
            ticks: { stroke: line, size: 3 },
            size: 22,
            values: (_, splits, __, ___, stepS) => splits.map((s) => tickText(s * 1_000, stepS, zone)),
          },
          {
            ...axis,
            grid: { stroke: line, width: 1 },
            ticks: { show: false },
            size: 58,
            space: 24,
            values: (_, ticks) => ticks.map((tick) => shownValue(tick, series.unit)),
          },
        ],
        series: [{}, { stroke: accent, width: 1, points: { show: points.times.length < 120, size: 4 } }],
        hooks: { setCursor: [(plotted) => setShown(plotted.cursor.idx ?? null)] },
      },
      [points.times, points.values],
      element,
    );
    const click = () => choose.current(plot.cursor.idx ?? null);
    plot.over.addEventListener("click", click);
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [series, first, last, theme, zone, id]);

  const peak = points.values.indexOf(Math.max(...points.values));
  const at = shown ?? peak;
  const value = points.values[at];
  return (
    <>
      <div ref={place} className="plot-canvas" aria-hidden="true" />
      <button type="button" className="link-button plot-point" onClick={() => choose.current(at)}>
        <span className="hidden-text">{name}: </span>
        {shown === null ? "highest " : ""}
        {value === undefined ? "" : shownValue(value, series.unit)} in line {points.lines[at]}
      </button>
    </>
  );
}
