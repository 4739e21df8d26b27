import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { session } from "./api/session";
import { App } from "./app/App";
import { theme } from "./app/theme";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/views.css";

theme.start();
void session.start();

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
