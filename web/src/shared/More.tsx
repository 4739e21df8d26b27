import { useEffect, useRef } from "react";
import { Button } from "./Button";

/** The next page, when it comes into sight or is asked for. */
export function More({ isLoading, onMore }: { isLoading: boolean; onMore: () => void }) {
  const place = useRef<HTMLDivElement>(null);
  const more = useRef(onMore);
  more.current = onMore;
  useEffect(() => {
    if (place.current === null || isLoading) return;
    const observer = new IntersectionObserver(([entry]) => {
      if (entry?.isIntersecting) more.current();
    });
    observer.observe(place.current);
    return () => observer.disconnect();
  }, [isLoading]);
  return (
    <div className="row-actions more" ref={place}>
      <Button disabled={isLoading} onClick={onMore}>
        {isLoading ? "Loading …" : "Load more"}
      </Button>
    </div>
  );
}
