import { useEffect, useRef, useState } from "react";

const TYPING_MS = 250;

/** A field whose text is asked for when nobody writes for a moment. */
export function Find({
  text,
  onText,
  label,
  placeholder,
}: {
  text: string;
  onText: (text: string) => void;
  label: string;
  placeholder: string;
}) {
  const [written, setWritten] = useState(text);
  const asked = useRef(text);
  const tell = useRef(onText);
  tell.current = onText;
  // Another address: back, forward, a link.
  useEffect(() => {
    if (text === asked.current) return;
    asked.current = text;
    setWritten(text);
  }, [text]);
  useEffect(() => {
    if (written === asked.current) return;
    const timer = setTimeout(() => {
      asked.current = written;
      tell.current(written);
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [written]);
  return (
    <input
      className="input find"
      type="search"
      aria-label={label}
      placeholder={placeholder}
      maxLength={200}
      value={written}
      onChange={(event) => setWritten(event.target.value)}
    />
  );
}
