export const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] as const;
export type LevelName = (typeof LEVELS)[number];

/** A level's name in its colour: never the colour alone. */
export function Level({ level }: { level: string }) {
  return (
    <span className="level" data-level={level}>
      {level}
    </span>
  );
}
