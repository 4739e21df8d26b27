import { lazy, Suspense, useEffect, useRef, useState } from "react";
import { Badge } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { Time } from "../../../shared/Time";
import { shownCount } from "../../../shared/times";
import type { Connection, Side, SideFigures } from "../queries";
import { LogPane } from "./LogPane";

const Plots = lazy(() => import("./Plots"));
const SIDES: Side[] = ["server", "client"];
/** Cards this far outside of sight have their logs and plots; those further away do not. */
const AROUND = "600px 0px";

/** A point that was clicked: its line is to be shown. */
export interface Jump {
  side: Side;
  time: string;
  line: number;
  /** Tells clicks on one point apart. */
  count: number;
}

export function ConnectionCard({
  connection,
  isWhole,
  side,
  onSide,
  isMarked,
  onMark,
}: {
  connection: Connection;
  /** With its logs and plots. */
  isWhole: boolean;
  side: Side;
  onSide: (side: Side) => void;
  isMarked: boolean;
  onMark: ((id: string) => void) | undefined;
}) {
  const place = useRef<HTMLLIElement>(null);
  const [isNear, setIsNear] = useState(false);
  const [jump, setJump] = useState<Jump | null>(null);
  useEffect(() => {
    if (place.current === null || !isWhole) return;
    const observer = new IntersectionObserver((entries) => setIsNear(entries.at(-1)?.isIntersecting ?? false), {
      rootMargin: AROUND,
    });
    observer.observe(place.current);
    return () => observer.disconnect();
  }, [isWhole]);
  const { id, username, ip, version, last_updated } = connection;
  return (
    <li className="card connection" ref={place} aria-label={`Connection ${id}`}>
      <div className="connection-head">
        <h2>{username}</h2>
        <span className="muted mono">{id}</span>
        <span>
          <span className="muted">ip</span> {ip}
        </span>
        <span>
          <span className="muted">version</span> <span className="mono">{version}</span>
        </span>
        <span>
          <span className="muted">updated</span> <Time at={last_updated} />
        </span>
        {onMark !== undefined && (
          <div className="connection-mark">
            <Button kind="quiet" aria-pressed={isMarked} aria-label={`Bookmark ${id}`} onClick={() => onMark(id)}>
              {isMarked ? "★" : "☆"}
            </Button>
          </div>
        )}
      </div>
      {!isWhole && (
        <div className="connection-figures">
          {SIDES.map((each) => (
            <Figures key={each} side={each} figures={connection[each]} />
          ))}
        </div>
      )}
      {isWhole && (
        <>
          <div className="connection-plots">
            {isNear && (
              <Suspense fallback={null}>
                <Plots
                  id={id}
                  onPoint={(point) => {
                    onSide(point.side);
                    setJump((before) => ({ ...point, count: (before?.count ?? 0) + 1 }));
                  }}
                />
              </Suspense>
            )}
          </div>
          <div className="segmented connection-sides" role="group" aria-label={`Log of ${id}`}>
            {SIDES.map((each) => (
              <Button key={each} kind="quiet" aria-pressed={side === each} onClick={() => onSide(each)}>
                {each}
              </Button>
            ))}
          </div>
          <div className="connection-logs">
            {SIDES.map((each) => (
              <section key={each} className="pane" data-shown={side === each} aria-label={`${each} log of ${id}`}>
                <Figures side={each} figures={connection[each]} />
                {connection[each] === null ? (
                  <p className="pane-missing">
                    <Badge tone="warn">no {each} log</Badge> It was not sent, or you may not read it.
                  </p>
                ) : (
                  isNear && <LogPane id={id} side={each} jump={jump?.side === each ? jump : null} />
                )}
              </section>
            ))}
          </div>
        </>
      )}
    </li>
  );
}

function Figures({ side, figures }: { side: Side; figures: SideFigures | null }) {
  return (
    <p className="figures">
      <strong>{side}</strong>{" "}
      {figures === null ? (
        <span className="muted">missing</span>
      ) : (
        <>
          <span className="muted">{shownCount(figures.lines)} lines</span>
          <span className="figure" data-kind={figures.errors > 0 ? "error" : undefined}>
            ERROR {shownCount(figures.errors)} ({figures.error_percent}%)
          </span>
          <span className="figure" data-kind={figures.warnings > 0 ? "warning" : undefined}>
            WARNING {shownCount(figures.warnings)} ({figures.warning_percent}%)
          </span>
        </>
      )}
    </p>
  );
}
