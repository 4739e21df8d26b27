import { type ReactNode, useEffect } from "react";
import { session } from "../api/session";
import { Link, navigate } from "../router/router";
import { Menu, MenuItem, MenuTitle } from "../shared/Menu";
import { THEMES, theme, useTheme, useZone, ZONES, zone } from "./theme";
import { VIEWS, type View } from "./views";

const THEME_NAMES = { system: "As the system", light: "Light", dark: "Dark" };
const ZONE_NAMES = { local: "Local time", UTC: "UTC" };

/** What every view stands in: the bar with navigation and settings. */
export function Shell({ view, children }: { view: View | undefined; children: ReactNode }) {
  useEffect(() => {
    document.title = view === undefined ? "Logfeed" : `${view.name} · Logfeed`;
  }, [view]);
  return (
    <div className="shell">
      <header className="topbar">
        <a className="button skip" href="#view">
          Skip to the view
        </a>
        <Link className="brand" href="/">
          Logfeed
        </Link>
        <nav className="nav" aria-label="Views">
          {VIEWS.filter((each) => !each.isInMenu).map((each) => (
            <Link key={each.path} href={each.path} aria-current={each === view ? "page" : undefined}>
              {each.name}
            </Link>
          ))}
        </nav>
        <SettingsMenu />
      </header>
      <main className="view" id="view" tabIndex={-1}>
        {children}
      </main>
    </div>
  );
}

function SettingsMenu() {
  const chosen = useTheme();
  const shownZone = useZone();
  const state = session.current();
  return (
    <Menu label="Settings" kind="quiet" button={state.kind === "in" ? state.identity.name : "Settings"}>
      <MenuTitle>Colours</MenuTitle>
      {THEMES.map((each) => (
        <MenuItem key={each} isChecked={each === chosen} onChoose={() => theme.set(each)}>
          {THEME_NAMES[each]}
        </MenuItem>
      ))}
      <MenuTitle>Times</MenuTitle>
      {ZONES.map((each) => (
        <MenuItem key={each} isChecked={each === shownZone} onChoose={() => zone.set(each)}>
          {ZONE_NAMES[each]}
        </MenuItem>
      ))}
      <MenuTitle>More</MenuTitle>
      <MenuItem onChoose={() => navigate("/settings")}>Session and permissions</MenuItem>
      <MenuItem href="/docs">API documentation</MenuItem>
      {state.kind === "in" && <MenuItem onChoose={() => void session.logout()}>Sign out</MenuItem>}
    </Menu>
  );
}
