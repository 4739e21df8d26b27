/**
 * The search box: the query language with completion, and a mistake marked under its column.
 *
 * What is typed is asked 250 ms after the last key, at once with Enter. The typing of one query is one entry of the history.
 */
import { type KeyboardEvent, type Ref, useEffect, useId, useImperativeHandle, useRef, useState } from "react";
import type { FieldProblem } from "../../../api/problem";
import { completions, type Sources } from "../engine/complete";

const DEBOUNCE_MS = 250;

export function SearchBox({
  query,
  onQuery,
  problem,
  sources,
  ref,
}: {
  query: string;
  /** isMore: the same typing goes on. */
  onQuery: (query: string, isMore: boolean) => void;
  problem: FieldProblem | null;
  /** Known fields and values, asked for when the list opens. */
  sources: () => Sources;
  ref?: Ref<HTMLInputElement>;
}) {
  const [draft, setDraft] = useState(query);
  const [caret, setCaret] = useState(0);
  const [isOpen, setIsOpen] = useState(false);
  const [active, setActive] = useState(-1);
  const [scrolled, setScrolled] = useState(0);
  const input = useRef<HTMLInputElement>(null);
  const isTyping = useRef(false);
  const asked = useRef(query);
  const id = useId();
  useImperativeHandle(ref, () => input.current as HTMLInputElement, []);

  // The address changed by itself: back, a click on a value.
  useEffect(() => {
    if (query !== asked.current) setDraft(query);
    asked.current = query;
  }, [query]);

  useEffect(() => {
    if (draft === asked.current) return;
    const timer = setTimeout(() => ask(draft), DEBOUNCE_MS);
    return () => clearTimeout(timer);
  });

  const ask = (text: string) => {
    if (text === asked.current) return;
    asked.current = text;
    onQuery(text, isTyping.current);
    isTyping.current = true;
  };

  const offered = isOpen ? completions(draft, caret, sources()) : null;
  const options = offered?.options ?? [];

  const take = (index: number) => {
    const option = options[index];
    if (offered === null || option === undefined) return;
    const text = draft.slice(0, offered.start) + option.text + draft.slice(offered.end);
    const at = offered.start + option.text.length;
    setDraft(text);
    setActive(-1);
    setIsOpen(option.goesOn);
    requestAnimationFrame(() => {
      input.current?.setSelectionRange(at, at);
      setCaret(at);
    });
  };

  const key = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      if (isOpen && options.length > 0) setIsOpen(false);
      else input.current?.blur();
    } else if (event.key === "Enter" || (event.key === "Tab" && active >= 0)) {
      event.preventDefault();
      if (active >= 0 && options.length > 0) take(active);
      else {
        setIsOpen(false);
        ask(draft);
        isTyping.current = false;
      }
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!isOpen) setIsOpen(true);
      else if (options.length > 0) {
        const step = event.key === "ArrowDown" ? 1 : -1;
        setActive((active + step + (active < 0 && step < 0 ? 1 : 0) + options.length) % options.length);
      }
    }
  };

  const column = problem?.column ?? null;
  return (
    <div className="search">
      <input
        ref={input}
        className="input search-input mono"
        type="search"
        role="combobox"
        aria-label="Search"
        aria-expanded={options.length > 0}
        aria-controls={`${id}-list`}
        aria-autocomplete="list"
        aria-activedescendant={active >= 0 ? `${id}-${active}` : undefined}
        aria-invalid={problem !== null}
        aria-describedby={problem === null ? undefined : `${id}-problem`}
        placeholder={'Search: words, "phrases", /regex/, level>=warn, field:value, -not'}
        spellCheck={false}
        autoComplete="off"
        autoCapitalize="off"
        maxLength={4000}
        value={draft}
        onChange={(event) => {
          setDraft(event.target.value);
          setCaret(event.target.selectionStart ?? event.target.value.length);
          setIsOpen(true);
          setActive(-1);
        }}
        onSelect={(event) => setCaret(event.currentTarget.selectionStart ?? 0)}
        onScroll={(event) => setScrolled(event.currentTarget.scrollLeft)}
        onKeyDown={key}
        onBlur={() => {
          setIsOpen(false);
          ask(draft);
          isTyping.current = false;
        }}
      />
      {options.length > 0 && (
        <div className="completion" role="listbox" id={`${id}-list`} aria-label="Completions">
          {options.map((option, index) => (
            // biome-ignore lint/a11y/useKeyWithClickEvents: the input has focus and keys
            <div
              key={option.text}
              id={`${id}-${index}`}
              role="option"
              className="completion-option"
              aria-selected={index === active}
              onPointerDown={(event) => event.preventDefault()}
              onClick={() => take(index)}
            >
              <span className="mono">{option.text}</span>
              <span className="muted">{option.hint}</span>
            </div>
          ))}
        </div>
      )}
      {problem !== null && (
        <div className="search-problem" id={`${id}-problem`} role="alert">
          {column !== null && (
            <span
              className="search-column mono"
              aria-hidden="true"
              style={{ left: `calc(9px + ${column - 1}ch - ${scrolled}px)` }}
            >
              ▲
            </span>
          )}
          <span>{problem.message}</span>
        </div>
      )}
    </div>
  );
}
