/** How many logs there were over time, by level. Dragging over a part zooms into it. A chunk of its own, with uPlot. */
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { getIfThere } from "../../../api/client";
import { useTheme, useZone } from "../../../app/theme";
import { tickText } from "../../../logs/times";
import { LEVELS } from "../../../shared/Level";
import { type HistogramAnswer, stackOf } from "../engine/stack";
import { ALL_TIME, type ExploreState, questionOf } from "../state";

const HEIGHT_PX = 84;
const BUCKETS = 120;

export default function Histogram({
  state,
  mayAsk,
  onZoom,
}: {
  state: ExploreState;
  /** Whether it is time to count; until then the bars of before stay. */
  mayAsk: boolean;
  onZoom: (from: string, to: string) => void;
}) {
  const asked = questionOf(state);
  if (state.from === ALL_TIME || state.from === "") asked.set("start_time", "-30d");
  asked.set("buckets", String(BUCKETS));
  const question = asked.toString();
  const theme = useTheme();
  const zone = useZone();
  const place = useRef<HTMLDivElement>(null);
  const zoom = useRef(onZoom);
  zoom.current = onZoom;
  const { data, error } = useQuery({
    queryKey: ["histogram", question],
    queryFn: ({ signal }) => getIfThere<HistogramAnswer>("/api/v1/histogram", new URLSearchParams(question), signal),
    enabled: mayAsk,
    placeholderData: (before) => before,
    refetchInterval: (query) => (state.live && query.state.data != null ? 15_000 : false),
  });

  // biome-ignore lint/correctness/useExhaustiveDependencies: the theme changes what colours are read
  useEffect(() => {
    const element = place.current;
    if (element === null || data == null) return;
    const stack = stackOf(data, LEVELS);
    const colour = (token: string) => {
      element.style.color = `var(${token})`;
      return getComputedStyle(element).color;
    };
    const [text, line] = [colour("--text-muted"), colour("--line")];
    const bars = uPlot.paths.bars?.({ size: [0.92, 40], align: 1 });
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT_PX,
        padding: [18, 8, 0, 0],
        tzDate: (s) => (zone === "UTC" ? uPlot.tzDate(new Date(s * 1000), "Etc/UTC") : new Date(s * 1000)),
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
        scales: {
          x: { time: true, range: () => [stack.startS, stack.endS] },
          y: { range: (_, __, max) => [0, max || 1] },
        },
        axes: [
          {
            stroke: text,
            grid: { show: false },
            ticks: { stroke: line, size: 3 },
            size: 22,
            space: 90,
            font: "11px system-ui",
            values: (_, splits, __, ___, stepS) => splits.map((s) => tickText(s * 1000, stepS, zone)),
          },
          {
            stroke: text,
            grid: { stroke: line, width: 1 },
            ticks: { show: false },
            size: 46,
            space: 28,
            font: "11px system-ui",
          },
        ],
        series: [
          {},
          ...stack.levels.map((level) => {
            const fill = colour(`--level-${level.toLowerCase()}`);
            return {
              label: level,
              fill,
              stroke: fill,
              width: 0,
              points: { show: false },
              ...(bars === undefined ? {} : { paths: bars }),
            };
          }),
        ],
        hooks: {
          setSelect: [
            (plotted) => {
              const { left, width } = plotted.select;
              if (width < 4) return;
              const at = (x: number) => new Date(plotted.posToVal(x, "x") * 1000).toISOString();
              zoom.current(at(left), at(left + width));
            },
          ],
        },
      },
      [stack.times, ...stack.tops],
      element,
    );
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [data, theme, zone]);

  if (data === null || (data === undefined && error !== null)) return null;
  return (
    <section className="histogram" aria-label="Logs over time">
      <div ref={place} aria-hidden="true" />
      {data !== undefined && (
        <span className="histogram-total muted">
          {data.is_estimated ? "about " : ""}
          {data.total.toLocaleString("en")} logs
          {data.counted_from === null ? "" : ", older ones not counted"}
        </span>
      )}
    </section>
  );
}
