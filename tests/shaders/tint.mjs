// node tint.mjs FOLDER: compiles WGSL texts with Tint, as Chromium does, for a device without a driver. FOLDER holds the package webgpu.
// In: a JSON array of texts. Out: a line for each in JSON, null if it was taken, or the first complaint.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { readFileSync } from 'node:fs';

const { create, globals } = await import(pathToFileURL(join(process.argv[2], 'node_modules/webgpu/index.js')));
Object.assign(globalThis, globals);
// Kept by a name for as long as the script runs: Dawn's objects don't keep it.
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter({ featureLevel: 'core' });
if (!adapter) throw new Error('Dawn has no adapter without a driver');
const device = await adapter.requestDevice({ requiredFeatures: ['subgroups', 'shader-f16'] });

async function complaint(code) {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  const error = await device.popErrorScope();
  const first = messages.find((message) => message.type === 'error');
  if (first) return `line ${first.lineNum}: ${first.message}`;
  return error ? error.message : null;
}

for (const code of JSON.parse(readFileSync(0, 'utf8'))) process.stdout.write(`${JSON.stringify(await complaint(code))}\n`);
// No waiting for the threads of Dawn.
process.exit(gpu ? 0 : 1);
