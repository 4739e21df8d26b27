/** Experiments: which there are, and one with its logs as they come. */
import { usePathRest } from "../../router/router";
import "./experiments.css";
import { ExperimentList } from "./parts/ExperimentList";
import { OneExperiment } from "./parts/OneExperiment";
import { useChanges } from "./queries";

export default function ExperimentsView() {
  const id = usePathRest("/experiments");
  const problem = useChanges();
  return id === "" ? <ExperimentList notLive={problem} /> : <OneExperiment key={id} id={id} notLive={problem} />;
}
