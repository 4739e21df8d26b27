/** Counts per bucket and level as series that are drawn over one another, the tallest first. */
export interface HistogramAnswer {
  start_time: string;
  end_time: string;
  bucket_s: number;
  buckets: { start_time: string; counts: Record<string, number> }[];
  total: number;
  counted_from: string | null;
  is_estimated: boolean;
}

export interface Stack {
  startS: number;
  endS: number;
  /** Seconds since the epoch, ascending. */
  times: number[];
  /** Whose top each series is, the worst at the bottom, so last. */
  levels: string[];
  tops: number[][];
}

/** levels: from the least to the worst. Those that no bucket has are left out. */
export function stackOf(answer: HistogramAnswer, levels: readonly string[]): Stack {
  const used = levels.filter((level) => answer.buckets.some(({ counts }) => (counts[level] ?? 0) > 0));
  const times = answer.buckets.map(({ start_time }) => Date.parse(start_time) / 1000);
  const tops = used.map((_, index) =>
    answer.buckets.map(({ counts }) => used.slice(index).reduce((sum, level) => sum + (counts[level] ?? 0), 0)),
  );
  return {
    startS: Date.parse(answer.start_time) / 1000,
    endS: Date.parse(answer.end_time) / 1000,
    times,
    levels: used,
    tops,
  };
}
