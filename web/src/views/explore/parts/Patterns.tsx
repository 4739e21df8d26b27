/** Kinds of lines in the time that is looked at: common, failing, new, gone. A click shows the lines of one. */
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { answerOf, client, type Schemas } from "../../../api/client";
import { Button } from "../../../shared/Button";
import { LEVELS, Level } from "../../../shared/Level";
import { Empty, ErrorState, Loading } from "../../../shared/states";
import { ALL_TIME, type ExploreState } from "../state";

const SORTS = [
  ["count", "Common"],
  ["errors", "Failing"],
  ["new", "New"],
  ["gone", "Gone"],
] as const;

export function Patterns({
  state,
  onPattern,
  onClose,
}: {
  state: ExploreState;
  onPattern: (id: string) => void;
  onClose: () => void;
}) {
  const [sort, setSort] = useState<(typeof SORTS)[number][0]>("count");
  const found = useQuery({
    queryKey: ["patterns", sort, state.from, state.to, state.service],
    queryFn: ({ signal }) =>
      answerOf(
        client.GET("/api/v1/patterns", {
          params: {
            query: {
              sort,
              limit: 100,
              start_time: state.from === ALL_TIME ? "-30d" : state.from,
              ...(state.to === "" ? {} : { end_time: state.to }),
              ...(state.service.length === 0 ? {} : { service_name: state.service }),
            },
          },
          signal,
        }),
      ),
  });
  return (
    <section className="details patterns" aria-label="Patterns">
      <div className="details-head">
        <h1>Patterns</h1>
        <Button kind="quiet" className="details-close" aria-label="Close patterns" onClick={onClose}>
          ✕
        </Button>
      </div>
      <div className="details-actions" role="group" aria-label="Which patterns">
        {SORTS.map(([value, name]) => (
          <Button key={value} aria-pressed={value === sort} onClick={() => setSort(value)}>
            {name}
          </Button>
        ))}
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <div className="details-body" tabIndex={0}>
        {found.isPending ? (
          <Loading />
        ) : found.error !== null ? (
          <ErrorState problem={found.error} onRetry={() => void found.refetch()} />
        ) : (
          <PatternList answer={found.data} sort={sort} onPattern={onPattern} />
        )}
      </div>
    </section>
  );
}

function PatternList({
  answer,
  sort,
  onPattern,
}: {
  answer: Schemas["PatternListAnswer"];
  sort: string;
  onPattern: (id: string) => void;
}) {
  if (answer.patterns.length === 0) {
    const why =
      answer.counted_through === null ? "Nothing was counted yet." : "Choose another time, or other services.";
    return <Empty title={sort === "count" ? "No lines in this time" : "None in this time"}>{why}</Empty>;
  }
  return (
    <>
      <p className="muted">
        {answer.count.toLocaleString("en")} lines
        {answer.complete ? "" : "; some of this time was not counted"}
      </p>
      <ul className="pattern-list">
        {answer.patterns.map((pattern) => (
          <li key={pattern.id}>
            <button type="button" className="pattern" onClick={() => onPattern(pattern.id)}>
              <span className="pattern-count number">
                {(sort === "gone"
                  ? pattern.count_before
                  : sort === "errors"
                    ? pattern.errors
                    : pattern.count
                ).toLocaleString("en")}
              </span>
              <span className="pattern-text mono">{pattern.template}</span>
              <span className="pattern-notes muted">
                <Level level={worst(pattern.levels)} /> {pattern.services.slice(0, 2).join(", ")}
                {pattern.services_count > 2 ? ` and ${pattern.services_count - 2} more` : ""}
                {changeOf(pattern, sort)}
              </span>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}

function worst(levels: Record<string, number>): string {
  return LEVELS.findLast((level) => (levels[level] ?? 0) > 0) ?? "INFO";
}

function changeOf(pattern: Schemas["PatternModel"], sort: string): string {
  if (sort === "gone" || sort === "new") return "";
  if (pattern.change === null) return " · not in the time before";
  const percent = Math.round(pattern.change * 100);
  return percent === 0 ? "" : ` · ${percent > 0 ? "+" : "−"}${Math.abs(percent)} %`;
}
