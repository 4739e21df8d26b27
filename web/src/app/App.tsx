import { QueryClientProvider } from "@tanstack/react-query";
import { lazy, Suspense, useEffect, useState, useSyncExternalStore } from "react";
import { makeQueryClient } from "../api/client";
import { session } from "../api/session";
import { navigate, useAddress } from "../router/router";
import { ErrorBoundary } from "../shared/ErrorBoundary";
import { Empty, ErrorState, Loading } from "../shared/states";
import { Toasts } from "../shared/toast";
import { placeToReturn } from "./returning";
import { Shell } from "./Shell";
import { viewAt } from "./views";

const LoginView = lazy(() => import("../views/login"));

export function useSession() {
  return useSyncExternalStore(session.subscribe, session.current);
}

/** Whoever is not logged in comes to /login, and from there back to the exact place. */
export function App() {
  const [queries] = useState(makeQueryClient);
  const { path, search } = useAddress();
  const state = useSession();

  useEffect(() => {
    if (state.kind === "out") {
      queries.clear();
      if (path !== "/login") {
        navigate(`/login?${new URLSearchParams({ return_to: path + search })}`, { replace: true });
      }
    } else if (path === "/login" && (state.kind === "in" || state.kind === "open")) {
      navigate(placeToReturn(search), { replace: true });
    }
  }, [state.kind, path, search, queries]);

  return (
    <QueryClientProvider client={queries}>
      <ErrorBoundary>
        <Suspense fallback={<Loading />}>{content(path, state)}</Suspense>
      </ErrorBoundary>
      <Toasts />
    </QueryClientProvider>
  );
}

function content(path: string, state: ReturnType<typeof session.current>) {
  if (state.kind === "away") {
    return <ErrorState problem={state.problem} onRetry={() => void session.start()} />;
  }
  if (state.kind === "starting") return <Loading />;
  if (state.kind === "out") return path === "/login" ? <LoginView /> : null;
  const view = viewAt(path);
  return (
    <Shell view={view}>
      <ErrorBoundary key={view?.path}>
        <Suspense fallback={<Loading />}>
          {view === undefined ? <Empty title="There is no such page">{path} leads nowhere.</Empty> : <view.component />}
        </Suspense>
      </ErrorBoundary>
    </Shell>
  );
}
