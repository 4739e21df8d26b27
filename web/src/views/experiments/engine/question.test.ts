import { expect, test } from "vitest";
import { questionOf } from "./question";

test("an experiment's logs are asked by level, agent and time", () => {
  const asked = questionOf("exp-1", { level: ["WARN", "ERROR"], agent: ["a", 'b "c"'], from: "-15m", to: "" });
  expect([...asked]).toEqual([
    ["metadata.experiment_id", "exp-1"],
    ["level", "WARN"],
    ["level", "ERROR"],
    ["query", 'metadata.agent_id:"a" OR metadata.agent_id:"b \\"c\\""'],
    ["start_time", "-15m"],
  ]);
  expect([...questionOf("x", { level: [], agent: [], from: "", to: "" })]).toEqual([["metadata.experiment_id", "x"]]);
});
