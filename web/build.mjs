// Bundles every script and style sheet that lies directly in src/ into the web room's static folder, one bundle each
// (what lies in its folders is imported by them), named by content, with a manifest from names to files.
import { build } from "esbuild";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = join(here, "../src/coder/web/static");
const source = join(here, "src");
const entries = (await readdir(source)).filter((name) => /\.(js|css)$/.test(name)).map((name) => join(source, name));

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
const made = await build({
  entryPoints: entries,
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  entryNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  loader: { ".svg": "file", ".woff2": "file" },
  legalComments: "linked",
  metafile: true,
  logLevel: "warning",
});

const manifest = {};
for (const [file, { entryPoint, bytes }] of Object.entries(made.metafile.outputs)) {
  if (!entryPoint) continue;
  manifest[basename(entryPoint)] = basename(file);
  const path = join(out, basename(file));
  const packed = gzipSync(await readFile(path), { level: 9 });
  await writeFile(`${path}.gz`, packed);
  console.log(`${basename(file)}  ${(bytes / 1024).toFixed(1)} KiB, sent as ${(packed.length / 1024).toFixed(1)} KiB`);
}
await writeFile(join(out, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
