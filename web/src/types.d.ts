/** Where a model is: the address of a GGUF file, or of a folder with config.json, tokenizer.json and model.safetensors; or such files, chosen by the user. */
export type Source = string | File | File[] | FileList;
/** How far something is; `what`: the case of a check. */
export interface Progress { loaded: number; total: number; what?: string }
export interface LoadOptions {
  /** The type of the matrices in GPU memory; as the file has them if it is not given. */
  dtype?: "f32" | "f16" | "bf16" | "q8_0";
  signal?: AbortSignal;
}
export interface Message { role: "system" | "user" | "assistant"; content: string }
/** What is not given is as the model's files say, else greedy. */
export interface GenerateOptions {
  maxTokens?: number; temperature?: number; topK?: number; topP?: number; minP?: number; repetitionPenalty?: number;
  seed?: number; stop?: string[];
  /** Ends the answer behind the next token. */
  signal?: AbortSignal;
}
export interface Answer { text: string; tokens: number[]; finish: "end" | "stop" | "length" | "context" | "broken_off"; promptTokens: number }
/** A GPT-2 of characters. */
export interface TrainOptions {
  steps?: number; layers?: number; heads?: number; width?: number; context?: number; batch?: number; learningRate?: number; seed?: number;
  /** Ends the training behind the next step; the model is as good as it got. */
  signal?: AbortSignal;
}
export interface Step { step: number; steps: number; loss: number; learningRate: number; tokensPerSecond: number }
export interface Info {
  name: string; driver: string; vendor: number; fallback: boolean; f16: boolean; subgroups: [number, number] | null; timestamps: boolean;
  maxInvocations: number; workgroupMemory: number; storageBindings: number; maxBindingBytes: number; maxBufferBytes: number;
}
export interface ModelInfo {
  family: string; generates: boolean; chats: boolean; parameters: number; layers: number; width: number; vocabulary: number; context: number;
}
/** The largest errors of an op's results are [NMSE, share of the largest value]. */
export interface Miss { case: string; variants: string; what: string }
export interface ReportRow {
  op: string; dtype: string; cases: number; runs: number; forward: [number, number]; backward: [number, number]; seconds: number;
  missed: Miss[]; known: Miss[]; unsupported: Miss[];
}
export interface Report { rows: ReportRow[]; compared: number; missed: number }
