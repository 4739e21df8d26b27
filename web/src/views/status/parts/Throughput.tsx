/** Logs a minute by what became of them, stacked. A chunk of its own, with uPlot. */
import { useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useTheme, useZone } from "../../../app/theme";
import { tickText } from "../../../logs/times";
import { shownCount, shownMoment } from "../../../shared/times";
import { type Minutes, OUTCOME_NAMES, OUTCOMES, stacked } from "../engine/ledger";

const HEIGHT_PX = 200;
const COLOURS: Record<(typeof OUTCOMES)[number], string> = {
  stored: "--accent",
  filtered: "--level-trace",
  rejected: "--level-warn",
  duplicate: "--level-info",
  dead_lettered: "--level-error",
};

export default function Throughput({ minutes }: { minutes: Minutes }) {
  const place = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  const zone = useZone();
  const [at, setAt] = useState<number | null>(null);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the theme changes what colours are read
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const colour = (token: string) => {
      element.style.color = `var(${token})`;
      return getComputedStyle(element).color;
    };
    const [text, line] = [colour("--text-muted"), colour("--line")];
    const tops = stacked(OUTCOMES.map((outcome) => minutes.counts[outcome]));
    const bars = uPlot.paths.bars?.({ size: [0.9, 60], align: 1 });
    const endS = (minutes.times.at(-1) ?? 0) + 60;
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT_PX,
        padding: [6, 8, 0, 0],
        legend: { show: false },
        tzDate: (s) => (zone === "UTC" ? uPlot.tzDate(new Date(s * 1_000), "Etc/UTC") : new Date(s * 1_000)),
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: {
          x: { time: true, range: () => [minutes.times[0] ?? 0, endS] },
          y: { range: (_, __, max) => [0, max || 1] },
        },
        axes: [
          {
            stroke: text,
            grid: { show: false },
            ticks: { stroke: line, size: 3 },
            size: 24,
            font: "11px system-ui",
            values: (_, splits, __, ___, stepS) => splits.map((s) => tickText(s * 1_000, stepS, zone)),
          },
          { stroke: text, grid: { stroke: line, width: 1 }, ticks: { show: false }, size: 56, font: "11px system-ui" },
        ],
        series: [
          {},
          // The tallest first, so that the lower ones are drawn over it.
          ...[...OUTCOMES].reverse().map((outcome) => {
            const fill = colour(COLOURS[outcome]);
            return {
              label: OUTCOME_NAMES[outcome],
              fill,
              stroke: fill,
              width: 0,
              points: { show: false },
              ...(bars === undefined ? {} : { paths: bars }),
            };
          }),
        ],
        hooks: { setCursor: [(plotted) => setAt(plotted.cursor.idx ?? null)] },
      },
      [minutes.times, ...[...tops].reverse()],
      element,
    );
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [minutes, theme, zone]);

  const sum = (outcome: (typeof OUTCOMES)[number]) =>
    at === null ? minutes.counts[outcome].reduce((all, count) => all + count, 0) : (minutes.counts[outcome][at] ?? 0);
  const moment = at === null ? undefined : minutes.times[at];
  return (
    <div className="throughput">
      <ul className="legend" aria-label="Logs by what became of them">
        {OUTCOMES.map((outcome) => (
          <li key={outcome}>
            <span className="swatch" style={{ background: `var(${COLOURS[outcome]})` }} aria-hidden="true" />
            {OUTCOME_NAMES[outcome]} <strong>{shownCount(sum(outcome))}</strong>
          </li>
        ))}
        <li className="muted">
          {moment === undefined
            ? "in all"
            : `in the minute of ${shownMoment(new Date(moment * 1_000).toISOString(), zone)}`}
        </li>
      </ul>
      <div ref={place} aria-hidden="true" />
    </div>
  );
}
