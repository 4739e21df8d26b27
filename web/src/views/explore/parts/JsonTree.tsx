/** Metadata as a tree. A click on a value offers to include or exclude it. Large ones are cut, and say so. */
import { useState } from "react";
import { Button } from "../../../shared/Button";
import { metadataTerm } from "../engine/query";

const CHILDREN_MAX = 200;
const OPEN_DEPTH = 3;

export type OnTerm = (term: string, isExcluded: boolean) => void;

export function JsonTree({ value, onTerm }: { value: Record<string, unknown>; onTerm: OnTerm }) {
  if (Object.keys(value).length === 0) return <p className="muted">No metadata</p>;
  return (
    <ul className="tree mono">
      <Children value={value} path={[]} onTerm={onTerm} isInArray={false} />
    </ul>
  );
}

function Children({
  value,
  path,
  onTerm,
  isInArray,
}: {
  value: object;
  path: string[];
  onTerm: OnTerm;
  isInArray: boolean;
}) {
  const entries = Object.entries(value);
  return (
    <>
      {entries.slice(0, CHILDREN_MAX).map(([key, inner]) => (
        <Node key={key} name={key} value={inner} path={[...path, key]} onTerm={onTerm} isInArray={isInArray} />
      ))}
      {entries.length > CHILDREN_MAX && <li className="muted">… {entries.length - CHILDREN_MAX} more</li>}
    </>
  );
}

function Node({
  name,
  value,
  path,
  onTerm,
  isInArray,
}: {
  name: string;
  value: unknown;
  path: string[];
  onTerm: OnTerm;
  isInArray: boolean;
}) {
  const [isOpen, setIsOpen] = useState(path.length < OPEN_DEPTH);
  if (typeof value === "object" && value !== null) {
    const size = Object.keys(value).length;
    const kind = Array.isArray(value) ? `[${size}]` : `{${size}}`;
    return (
      <li>
        <button type="button" className="tree-fold" aria-expanded={isOpen} onClick={() => setIsOpen(!isOpen)}>
          <span aria-hidden="true">{isOpen ? "▾" : "▸"}</span> <span className="tree-key">{name}</span>{" "}
          <span className="muted">{kind}</span>
        </button>
        {isOpen && (
          <ul>
            <Children value={value} path={path} onTerm={onTerm} isInArray={isInArray || Array.isArray(value)} />
          </ul>
        )}
      </li>
    );
  }
  const term = isInArray ? null : metadataTerm(path, value);
  return (
    <li className="tree-leaf">
      <span className="tree-key">{name}</span>: <span className="tree-value">{JSON.stringify(value)}</span>
      {term !== null && <TermButtons term={term} onTerm={onTerm} />}
    </li>
  );
}

/** Two small buttons: only such lines, or all others. */
export function TermButtons({ term, onTerm }: { term: string; onTerm: OnTerm }) {
  return (
    <span className="term-buttons">
      <Button kind="quiet" aria-label={`Only ${term}`} title={`Only ${term}`} onClick={() => onTerm(term, false)}>
        +
      </Button>
      <Button kind="quiet" aria-label={`Not ${term}`} title={`Not ${term}`} onClick={() => onTerm(term, true)}>
        −
      </Button>
    </span>
  );
}
