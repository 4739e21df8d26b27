/** The table of logs over an explorer's rows. */
import { type KeyboardEvent, type Ref, useCallback, useSyncExternalStore } from "react";
import { useZone } from "../../../app/theme";
import type { Explorer } from "../../../logs/explorer";
import type { Row } from "../../../logs/row";
import { dayAndClock } from "../../../logs/times";
import { Level } from "../../../shared/Level";
import { VirtualTable, type VirtualTableHandle } from "../../../shared/VirtualTable";
import { fieldText } from "../engine/complete";
import type { Highlighter } from "../engine/highlight";
import { Message } from "./Message";

/** More of a message than fits a line of any screen. */
const SHOWN_CHARS = 600;

export function LogTable({
  explorer,
  highlighter,
  active,
  openId,
  columns,
  onActive,
  onOpen,
  onKeyDown,
  ref,
}: {
  explorer: Explorer;
  highlighter: Highlighter;
  /** The row that keys act on. */
  active: Row | null;
  openId: string;
  /** Metadata fields with a column of their own. */
  columns: readonly string[];
  onActive: (row: Row) => void;
  onOpen: (row: Row) => void;
  onKeyDown: (event: KeyboardEvent) => void;
  ref: Ref<VirtualTableHandle>;
}) {
  useSyncExternalStore(explorer.subscribe, explorer.current);
  useSyncExternalStore(highlighter.subscribe, highlighter.current);
  const zone = useZone();
  const year = new Date().getFullYear();
  const { store } = explorer;
  const reach = useCallback((first: number, last: number) => explorer.reach(first, last), [explorer]);
  const toTop = useCallback((isAtTop: boolean) => explorer.setAtTop(isAtTop), [explorer]);

  return (
    <VirtualTable
      ref={ref}
      className="logs"
      style={{ "--columns": `repeat(${columns.length}, minmax(0, 120px))` }}
      head={
        <div className="log-head" data-columns={columns.length}>
          <span>Level</span>
          <span className="log-time">Time</span>
          <span className="log-service">Service</span>
          {columns.map((name) => (
            <span key={name} className="log-field" title={name}>
              {name}
            </span>
          ))}
          <span>Message</span>
        </div>
      }
      label="Logs, newest first"
      count={store.count}
      active={active === null ? -1 : store.indexOf(active)}
      onRange={reach}
      onScroll={toTop}
      onKeyDown={onKeyDown}
      keyOf={(index) => store.at(index)?.id ?? index}
      rowProps={(index) => {
        const row = store.at(index);
        if (row === undefined) return { className: "log-absent" };
        const isContext = !store.isResult(row);
        return {
          className: isContext ? "log log-context" : "log",
          "data-level": row.level,
          "data-columns": String(columns.length),
          "data-open": row.id === openId ? "" : undefined,
          "data-id": row.id,
        };
      }}
      onRowClick={(index) => {
        const row = store.at(index);
        // Whoever marks text to copy it does not ask for details.
        if (row === undefined || window.getSelection()?.type === "Range") return;
        onActive(row);
        onOpen(row);
      }}
      row={(index) => {
        const row = store.at(index);
        if (row === undefined) {
          return (
            <span role="gridcell" className="muted">
              …
            </span>
          );
        }
        const [day, clock] = dayAndClock(row.timestamp, zone, year);
        return (
          <>
            <span role="gridcell" className="log-level">
              <Level level={row.level} />
            </span>
            <span role="gridcell" className="log-time">
              <span className="log-day">{day} </span>
              {clock}
            </span>
            <span role="gridcell" className="log-service" title={row.service_name}>
              {row.service_name}
            </span>
            {columns.map((name) => {
              const text = fieldText(row, name);
              return (
                <span key={name} role="gridcell" className="log-field" title={text}>
                  {text.slice(0, SHOWN_CHARS)}
                </span>
              );
            })}
            <span role="gridcell" className="log-message">
              <Message text={row.message} spans={highlighter.spansOf(row)} charsMax={SHOWN_CHARS} />
            </span>
          </>
        );
      }}
    />
  );
}
