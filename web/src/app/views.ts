/** Which view is at which path, each in a chunk of its own. The server answers these paths with the page (cli/page.py). */
import { type ComponentType, lazy } from "react";

export interface View {
  path: string;
  /** In the navigation and the title. */
  name: string;
  component: ComponentType;
  /** Not in the navigation: the menu leads there. */
  isInMenu?: true;
}

/** In the order of the navigation. A view has its path and everything below it. */
export const VIEWS: View[] = [
  { path: "/", name: "Explore", component: lazy(() => import("../views/explore")) },
  { path: "/experiments", name: "Experiments", component: lazy(() => import("../views/experiments")) },
  { path: "/connections", name: "Connections", component: lazy(() => import("../views/connections")) },
  { path: "/alerts", name: "Alerts", component: lazy(() => import("../views/alerts")) },
  { path: "/status", name: "Status", component: lazy(() => import("../views/status")) },
  { path: "/settings", name: "Settings", component: lazy(() => import("../views/settings")), isInMenu: true },
];

export function viewAt(path: string): View | undefined {
  return VIEWS.find((view) => path === view.path || (view.path !== "/" && path.startsWith(`${view.path}/`)));
}
