// Reads a cache as the hub's own JavaScript client does; prints what it found as JSON.
// usage: node scan.mjs CACHE [ID COMMIT FILE...]: files are then opened without any network
import { downloadFileToCacheDir, scanCacheDir } from "@huggingface/hub";

const [cacheDir, repo, revision, ...files] = process.argv.slice(2);
const cache = await scanCacheDir(cacheDir);
const opened = [];
for (const path of files) {
  const fetch = () => {
    throw new Error("the network was used");
  };
  opened.push(await downloadFileToCacheDir({ repo, path, revision, cacheDir, fetch }));
}
console.log(
  JSON.stringify({
    warnings: cache.warnings.map(String),
    size: cache.size,
    opened,
    repos: cache.repos.map((r) => ({
      id: r.id.name,
      type: r.id.type,
      size: r.size,
      revisions: r.revisions.map((v) => ({
        commit: v.commitOid,
        size: v.size,
        refs: v.refs,
        files: Object.fromEntries(v.files.map((f) => [f.path, f.blob.size])),
      })),
    })),
  }),
);
