/**
 * Which element draws which row. What leaves the sight leaves its element to what comes: filling one anew costs a browser a
 * third of making one. A row that stays keeps its own, so that what is marked in it stays marked.
 */
export type Key = string | number | bigint;

export class Slots {
  #slotOf = new Map<Key, number>();

  /** The element's number of each row in sight. Numbers are 0, 1, … up to the most rows that were in sight at once. */
  assign(keys: readonly Key[]): number[] {
    const stays = new Map<Key, number>();
    for (const key of keys) {
      const slot = this.#slotOf.get(key);
      if (slot !== undefined) stays.set(key, slot);
    }
    const taken = new Set(stays.values());
    let next = 0;
    for (const key of keys) {
      if (stays.has(key)) continue;
      while (taken.has(next)) next += 1;
      taken.add(next);
      stays.set(key, next);
    }
    this.#slotOf = stays;
    return keys.map((key) => stays.get(key) as number);
  }
}
