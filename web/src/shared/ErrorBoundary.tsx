import { Component, type ReactNode } from "react";
import { asProblem } from "../api/problem";
import { ErrorState } from "./states";

/** A defect of one view takes only that view. A chunk that is not there any more (after an update) asks for a reload. */
export class ErrorBoundary extends Component<{ children: ReactNode }, { error: unknown }> {
  override state: { error: unknown } = { error: null };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    if (this.state.error === null) return this.props.children;
    return <ErrorState problem={asProblem(this.state.error)} onRetry={() => window.location.reload()} />;
  }
}
