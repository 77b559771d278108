//! Embeds the viewer page: every file under `web/` that a browser loads becomes an entry of `ASSETS` in `src/http/`.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("web");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let mut tag = DefaultHasher::new();
    let mut code = String::from("const ASSETS: &[Asset] = &[\n");
    for file in &files {
        let path = file.strip_prefix(&root).expect("under web/").display().to_string();
        fs::read(file).expect("a readable file").hash(&mut tag);
        let kind = match file.extension().and_then(|extension| extension.to_str()) {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js" | "mjs") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("webmanifest") => "application/manifest+json",
            _ => continue,
        };
        writeln!(
            code,
            "    Asset {{ path: {path:?}, kind: {kind:?}, bytes: include_bytes!({:?}) }},",
            file.display().to_string()
        )
        .expect("a string grows");
    }
    writeln!(code, "];\nconst ASSETS_TAG: &str = \"\\\"{:016x}\\\"\";", tag.finish()).expect("a string grows");
    fs::write(PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("assets.rs"), code).expect("a writable OUT_DIR");
}

/// The page's own files; tests, tools and their packages stay out.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        match name.to_str() {
            Some("node_modules" | "test" | "types") | None => {}
            Some(name) if name.starts_with('.') => {}
            Some(_) if path.is_dir() => collect(&path, files),
            Some(_) => files.push(path),
        }
    }
}
