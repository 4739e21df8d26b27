/** All of one log: message, fields, metadata, and what leads on from it. */
import { type ReactNode, useState } from "react";
import type { Log } from "../../../api/client";
import { useZone } from "../../../app/theme";
import { shownTime } from "../../../logs/times";
import { Button } from "../../../shared/Button";
import { Level } from "../../../shared/Level";
import { copy } from "../../../shared/toast";
import type { Span } from "../engine/highlight";
import { quoted } from "../engine/query";
import { JsonTree, type OnTerm, TermButtons } from "./JsonTree";
import { Message } from "./Message";

/** As the server has it. */
const NOTE_CHARS_MAX = 2_000;

/** A line as a text file would have it. */
export function lineOf(log: Log): string {
  const correlation = log.correlation_id === null ? "" : ` [${log.correlation_id}]`;
  const metadata = Object.keys(log.metadata).length === 0 ? "" : ` ${JSON.stringify(log.metadata)}`;
  return `${log.timestamp} ${log.level} ${log.service_name}${correlation} ${log.message}${metadata}`;
}

/** Opens with this log amid its neighbours. */
export function linkOf(log: Log): string {
  const search = new URLSearchParams({ from: "all", log: log.id, at: log.id });
  return `${window.location.origin}/?${search}`;
}

export function Details({
  log,
  spans,
  onTerm,
  onClose,
  onContext,
  isSurrounded,
  onStory,
  bookmark,
  note,
}: {
  log: Log;
  spans: Span[];
  onTerm: OnTerm;
  onClose: () => void;
  onContext: () => void;
  isSurrounded: boolean;
  onStory: (correlationId: string) => void;
  /** The button of bookmarks, where there are any. */
  bookmark?: ReactNode;
  /** What was written about it; undefined: it is no bookmark. */
  note?: { text: string; onChange: (text: string) => void } | undefined;
}) {
  const zone = useZone();
  const correlationId = log.correlation_id;
  return (
    <section className="details" aria-label="Log">
      <div className="details-head">
        <Level level={log.level} />
        <span className="mono">{shownTime(log.timestamp, zone, 0)}</span>
        <Button kind="quiet" className="details-close" aria-label="Close details" onClick={onClose}>
          ✕
        </Button>
      </div>
      <div className="details-actions">
        <Button onClick={() => void copy(lineOf(log), "the line")}>Copy line</Button>
        <Button onClick={() => void copy(linkOf(log), "the link")}>Copy link</Button>
        <Button aria-pressed={isSurrounded} onClick={onContext} title="The lines of the same service around it (x)">
          Surrounding lines
        </Button>
        {correlationId !== null && <Button onClick={() => onStory(correlationId)}>Whole story</Button>}
        {bookmark}
      </div>
      {note !== undefined && <Note key={log.id} {...note} />}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <div className="details-body" tabIndex={0}>
        <pre className="details-message mono">
          <Message text={log.message} spans={spans} />
        </pre>
        <dl className="details-facts">
          <Fact name="Service" value={log.service_name} term={`service:${log.service_name}`} onTerm={onTerm} />
          <Fact
            name="Level"
            value={`${log.level} (${log.severity})`}
            term={`level:${log.level.toLowerCase()}`}
            onTerm={onTerm}
          />
          {correlationId !== null && (
            <Fact
              name="Correlation"
              value={correlationId}
              term={`correlation:${quoted(correlationId)}`}
              onTerm={onTerm}
            />
          )}
          <Fact name="Timestamp" value={log.timestamp} />
          <Fact name="Received" value={log.received_at} />
          <Fact name="Id" value={log.id} />
        </dl>
        <h2>Metadata</h2>
        <JsonTree value={log.metadata} onTerm={onTerm} />
      </div>
    </section>
  );
}

/** Kept when it is left, or with Enter. */
function Note({ text, onChange }: { text: string; onChange: (text: string) => void }) {
  const [draft, setDraft] = useState(text);
  const keep = () => draft.trim() !== text && onChange(draft.trim());
  return (
    <form
      className="details-note"
      onSubmit={(event) => {
        event.preventDefault();
        keep();
      }}
    >
      <input
        className="input"
        aria-label="Note"
        placeholder="Note on this bookmark"
        value={draft}
        maxLength={NOTE_CHARS_MAX}
        onChange={(event) => setDraft(event.target.value)}
        onBlur={keep}
      />
    </form>
  );
}

function Fact({ name, value, term, onTerm }: { name: string; value: string; term?: string; onTerm?: OnTerm }) {
  return (
    <div className="fact">
      <dt className="muted">{name}</dt>
      <dd className="mono">
        {value}
        {term !== undefined && onTerm !== undefined && <TermButtons term={term} onTerm={onTerm} />}
      </dd>
    </div>
  );
}
