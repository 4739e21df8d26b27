/** What a view shows when it has nothing to show: each of these states is designed, none is left over. */
import { type ReactNode, useEffect, useState } from "react";
import { type ApiProblem, asProblem } from "../api/problem";
import type { Permission } from "../api/session";
import { Button } from "./Button";

const LOADING_AFTER_MS = 150;

/** Nothing is there, and that is no error. Children: why, and what to do; actions: buttons. */
export function Empty({ title, children, actions }: { title: string; children?: ReactNode; actions?: ReactNode }) {
  return (
    <div className="state">
      <h2>{title}</h2>
      {children !== undefined && <p>{children}</p>}
      {actions !== undefined && <div className="state-actions">{actions}</div>}
    </div>
  );
}

/** A spinner, only for what takes longer than 150 ms: what is faster must not flicker. */
export function Loading({ label = "Loading" }: { label?: string }) {
  const isShown = useDelay(LOADING_AFTER_MS);
  return (
    <div className="state" role="status" aria-busy="true">
      {isShown && (
        <>
          <span className="spinner" aria-hidden="true" />
          <span className="muted">{label}</span>
        </>
      )}
    </div>
  );
}

/** True from the given time after the component appeared. */
export function useDelay(delayMs: number): boolean {
  const [isOver, setIsOver] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setIsOver(true), delayMs);
    return () => clearTimeout(timer);
  }, [delayMs]);
  return isOver;
}

/** A problem, as the server words it; a refused permission has its own words. permission: what the view needs. */
export function ErrorState({
  problem,
  onRetry,
  permission = "read",
}: {
  problem: ApiProblem | Error;
  onRetry?: () => void;
  permission?: Permission;
}) {
  const shown = asProblem(problem);
  if (shown.status === 403) return <NoPermission permission={permission} detail={shown.detail} />;
  return (
    <div className="state" role="alert">
      <h2>{shown.title}</h2>
      <p>{shown.detail}</p>
      {onRetry !== undefined && (
        <div className="state-actions">
          <Button kind="primary" onClick={onRetry}>
            Try again
          </Button>
        </div>
      )}
    </div>
  );
}

const MEANING: Record<Permission, string> = {
  read: "reading stored logs",
  tail: "watching logs as they come",
  export: "exporting",
  alert: "rules, alerts and silences",
  admin: "administration",
  write: "sending logs",
  host: "registering hosts",
};

/** 403: names the permission that is missing, and who can give it. detail: the server's words. */
export function NoPermission({ permission, detail }: { permission: Permission; detail?: string }) {
  return (
    <div className="state" role="alert">
      <h2>
        You lack the permission <code>{permission}</code>
      </h2>
      <p>
        It is needed for {MEANING[permission]}. {detail === undefined ? "" : `The server says: ${detail}.`} Whoever
        administers Logfeed can give it to you, for some services or all.
      </p>
    </div>
  );
}
