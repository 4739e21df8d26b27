/// <reference lib="webworker" />
import { type RegexAnswer, type RegexRequest, regexSpans } from "./highlight";

declare const self: DedicatedWorkerGlobalScope;

self.onmessage = ({ data }: MessageEvent<RegexRequest>) => {
  const regexes = data.regexes.map(({ source, flags }) => new RegExp(source, flags));
  const answer: RegexAnswer = { ids: data.ids, spans: data.texts.map((text) => regexSpans(text, regexes)) };
  self.postMessage(answer);
};
