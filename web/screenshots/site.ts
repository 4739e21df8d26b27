import type { TestProject } from "vitest/node";
import { start } from "../e2e/site";

export default (project: TestProject) => start(project, "demo");
