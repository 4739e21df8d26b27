import { useZone } from "../app/theme";
import { useNow } from "./now";
import { shownDistance, shownMoment } from "./times";

/** A moment in the reader's zone; exact on hover. */
export function Time({ at }: { at: string }) {
  const zone = useZone();
  return (
    <time className="nowrap" dateTime={at} title={at}>
      {shownMoment(at, zone)}
    </time>
  );
}

/** How long ago, or how far away; goes on by itself. */
export function Distance({ at }: { at: string }) {
  const nowMs = useNow();
  return (
    <time className="nowrap" dateTime={at} title={at}>
      {shownDistance(at, nowMs)}
    </time>
  );
}
