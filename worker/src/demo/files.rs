//! What is below one folder: listed, read and searched, never written.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::{Context, Effects, Tool, ToolError};

const MAX_ENTRIES: usize = 1000;
const MAX_READ: u64 = 256 * 1024;
const MAX_MATCHES: usize = 200;
const MAX_FILES_SEARCHED: usize = 20_000;
/// Of one file. Larger ones are skipped, as they are seldom text.
const MAX_SEARCHED: u64 = 4 * 1024 * 1024;
const MAX_LINE_SHOWN: usize = 300;
const MAX_FOLDER_DEPTH: usize = 32;

/// Arguments of `list_files`.
#[derive(Deserialize, JsonSchema)]
struct ListFiles {
    /// The folder, relative to the root; left out, the root itself.
    #[serde(default)]
    folder: PathBuf,
}

/// Arguments of `read_file`.
#[derive(Deserialize, JsonSchema)]
struct ReadFile {
    /// The file, relative to the root, such as "src/main.rs".
    path: PathBuf,
}

/// Arguments of `search_files`.
#[derive(Deserialize, JsonSchema)]
struct SearchFiles {
    /// The text to look for, as it is written; letters' case counts.
    #[schemars(length(min = 1))]
    text: String,
    /// The folder to search, with all folders in it, relative to the root; left out, the root itself.
    #[serde(default)]
    folder: PathBuf,
}

#[derive(Debug, Serialize)]
struct Listing {
    entries: Vec<Entry>,
    /// Whether there are more entries than are shown.
    truncated: bool,
}

#[derive(Debug, PartialEq, PartialOrd, Eq, Ord, Serialize)]
struct Entry {
    name: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Content {
    text: String,
    bytes: u64,
    /// Whether the file is longer than what is shown.
    truncated: bool,
}

#[derive(Debug, Default, Serialize)]
struct Found {
    matches: Vec<Match>,
    files_searched: usize,
    /// Whether the search ended before it had seen everything.
    truncated: bool,
}

#[derive(Debug, Serialize)]
struct Match {
    path: String,
    line: usize,
    text: String,
}

/// Fails if `root` is not a folder.
pub(super) fn tools(root: &Path) -> io::Result<Vec<Tool>> {
    let root = Arc::new(Root::open(root)?);
    let list = blocking(&root, |root, args: ListFiles, _| root.list(&args.folder));
    let read = blocking(&root, |root, args: ReadFile, _| root.read(&args.path));
    let search = blocking(&root, |root, args: SearchFiles, cancel| {
        root.search(&args, cancel)
    });
    let tools = [
        Tool::typed(
            "list_files",
            "Lists the files and folders in a folder, with sizes. Shows at most 1000.",
            list,
        ),
        Tool::typed(
            "read_file",
            "Reads a text file. Shows at most its first 256 KiB.",
            read,
        ),
        Tool::typed(
            "search_files",
            "Searches the text files in a folder, and in all folders in it, for a text. Shows at most 200 lines.",
            search,
        ),
    ];
    Ok(tools.map(|tool| tool.effects(Effects::ReadOnly)).into())
}

/// A handler whose work is done on a thread that may block.
fn blocking<A, R, W>(
    root: &Arc<Root>,
    work: W,
) -> impl Fn(A, Context) -> std::pin::Pin<Box<dyn Future<Output = Result<R, ToolError>> + Send>>
+ Send
+ Sync
+ 'static
where
    A: Send + 'static,
    R: Send + 'static,
    W: Fn(&Root, A, &CancellationToken) -> Result<R, ToolError> + Copy + Send + Sync + 'static,
{
    let root = Arc::clone(root);
    move |args, context| {
        let (root, cancel) = (Arc::clone(&root), context.cancellation().clone());
        // Dropping a handler does not reach its thread, so the thread looks at this token.
        let cancel = cancel.child_token();
        let dropped = cancel.clone().drop_guard();
        Box::pin(async move {
            let result = spawn_blocking(move || work(&root, args, &cancel)).await?;
            drop(dropped);
            result
        })
    }
}

/// A folder that nothing leads out of.
#[derive(Debug)]
struct Root {
    /// Without symbolic links.
    path: PathBuf,
}

impl Root {
    fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        fs::read_dir(&path)?;
        Ok(Self { path })
    }

    /// The real place of `path`, which is below the root.
    fn resolve(&self, path: &Path) -> Result<PathBuf, ToolError> {
        let shown = path.display();
        let outside = || {
            ToolError::permission_denied(format!(
                "{shown:?} is outside of the folder that can be read. Give a path relative to it, without `..`."
            ))
        };
        if !path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(outside());
        }
        let real = self
            .path
            .join(path)
            .canonicalize()
            .map_err(|error| not_readable(path, &error))?;
        if real.starts_with(&self.path) {
            Ok(real)
        } else {
            Err(outside())
        }
    }

    fn list(&self, folder: &Path) -> Result<Listing, ToolError> {
        let real = self.resolve(folder)?;
        let mut entries = Vec::new();
        let mut truncated = false;
        for entry in fs::read_dir(real).map_err(|error| not_readable(folder, &error))? {
            let entry = entry.map_err(|error| not_readable(folder, &error))?;
            if entries.len() == MAX_ENTRIES {
                truncated = true;
                break;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            // Of the link itself, where it is one: what it leads to may be outside.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let kind = match metadata.file_type() {
                kind if kind.is_dir() => "folder",
                kind if kind.is_file() => "file",
                kind if kind.is_symlink() => "link",
                _ => "other",
            };
            entries.push(Entry {
                name,
                kind,
                bytes: metadata.is_file().then_some(metadata.len()),
            });
        }
        entries.sort();
        Ok(Listing { entries, truncated })
    }

    fn read(&self, path: &Path) -> Result<Content, ToolError> {
        let real = self.resolve(path)?;
        let metadata = fs::metadata(&real).map_err(|error| not_readable(path, &error))?;
        // A pipe or a device could keep the reader for ever.
        if !metadata.is_file() {
            return Err(failed(format!("{:?} is not a file.", path.display())));
        }
        let file = File::open(&real).map_err(|error| not_readable(path, &error))?;
        let mut bytes = Vec::new();
        file.take(MAX_READ)
            .read_to_end(&mut bytes)
            .map_err(|error| not_readable(path, &error))?;
        let truncated = metadata.len() > bytes.len() as u64;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let cut_inside_a_character = error.utf8_error().error_len().is_none() && truncated;
                let mut bytes = error.into_bytes();
                bytes.truncate(valid);
                match String::from_utf8(bytes) {
                    Ok(text) if cut_inside_a_character => text,
                    _ => {
                        return Err(failed(format!(
                            "{:?} is not a text in UTF-8.",
                            path.display()
                        )));
                    }
                }
            }
        };
        Ok(Content {
            text,
            bytes: metadata.len(),
            truncated,
        })
    }

    fn search(&self, args: &SearchFiles, cancel: &CancellationToken) -> Result<Found, ToolError> {
        if args.text.is_empty() {
            let error = ToolError::invalid_arguments("There is no text to look for.");
            return Err(error.violation("/text", "must not be empty"));
        }
        let mut found = Found::default();
        let mut folders = vec![(self.resolve(&args.folder)?, 0)];
        while let Some((folder, depth)) = folders.pop() {
            // What cannot be read is passed over: a search shows what it can see.
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                if cancel.is_cancelled() {
                    return Err(failed("The search was cut short."));
                }
                // Links are not followed, so that nothing leads out or round in a circle.
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if kind.is_dir() && depth < MAX_FOLDER_DEPTH {
                    folders.push((entry.path(), depth + 1));
                } else if kind.is_file() {
                    if found.matches.len() >= MAX_MATCHES
                        || found.files_searched >= MAX_FILES_SEARCHED
                    {
                        found.truncated = true;
                        return Ok(found);
                    }
                    self.search_file(&entry.path(), &args.text, &mut found);
                }
            }
        }
        Ok(found)
    }

    fn search_file(&self, path: &Path, text: &str, found: &mut Found) {
        let Ok(file) = File::open(path) else { return };
        if file
            .metadata()
            .map_or(true, |metadata| metadata.len() > MAX_SEARCHED)
        {
            found.truncated = true;
            return;
        }
        found.files_searched += 1;
        let shown = path
            .strip_prefix(&self.path)
            .unwrap_or(path)
            .to_string_lossy();
        // A line that is not UTF-8 ends the reading of its file.
        for (index, line) in BufReader::new(file.take(MAX_SEARCHED))
            .lines()
            .map_while(Result::ok)
            .enumerate()
        {
            if !line.contains(text) {
                continue;
            }
            if found.matches.len() == MAX_MATCHES {
                found.truncated = true;
                return;
            }
            let text = crate::text::head(line.trim(), MAX_LINE_SHOWN).to_owned();
            found.matches.push(Match {
                path: shown.to_string(),
                line: index + 1,
                text,
            });
        }
    }
}

fn failed(message: impl Into<String>) -> ToolError {
    ToolError::failed(message).effect_not_started()
}

fn not_readable(path: &Path, error: &io::Error) -> ToolError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => failed(format!(
            "There is no {path:?}. `list_files` shows what there is."
        )),
        io::ErrorKind::NotADirectory => failed(format!("{path:?} is not a folder.")),
        _ => failed(format!("{path:?} cannot be read: {error}.")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn root() -> (TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("root");
        fs::create_dir_all(below.join("src")).unwrap();
        fs::write(folder.path().join("secret"), "hidden").unwrap();
        fs::write(below.join("a.txt"), "one\ntwo needle\n").unwrap();
        fs::write(below.join("src/b.txt"), "needle\n").unwrap();
        fs::write(below.join("binary"), [0xff, 0xfe]).unwrap();
        symlink(folder.path().join("secret"), below.join("out")).unwrap();
        symlink(folder.path(), below.join("up")).unwrap();
        let root = Root::open(&below).unwrap();
        (folder, root)
    }

    #[test]
    fn nothing_leads_out() {
        let (_folder, root) = root();
        for path in [
            "../secret",
            "/etc/passwd",
            "out",
            "up/secret",
            "src/../../secret",
            "up",
        ] {
            assert!(root.read(Path::new(path)).is_err(), "{path}");
            assert!(root.list(Path::new(path)).is_err(), "{path}");
        }
        let args = SearchFiles {
            text: "hidden".to_owned(),
            folder: PathBuf::new(),
        };
        assert!(
            root.search(&args, &CancellationToken::new())
                .unwrap()
                .matches
                .is_empty()
        );
    }

    #[test]
    fn what_is_below_is_shown() {
        let (_folder, root) = root();
        assert_eq!(
            root.read(Path::new("./a.txt")).unwrap().text,
            "one\ntwo needle\n"
        );
        let names: Vec<_> = root
            .list(Path::new(""))
            .unwrap()
            .entries
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names, ["a.txt", "binary", "out", "src", "up"]);
        let args = SearchFiles {
            text: "needle".to_owned(),
            folder: PathBuf::new(),
        };
        let found = root
            .search(&args, &CancellationToken::new())
            .unwrap()
            .matches;
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].path.as_str(), found[0].line), ("a.txt", 2));
    }

    #[test]
    fn what_is_large_is_cut_at_a_character() {
        let (_folder, root) = root();
        fs::write(root.path.join("large"), format!("a{}", "ü".repeat(200_000))).unwrap();
        let content = root.read(Path::new("large")).unwrap();
        assert!(content.truncated);
        assert_eq!(content.text.len() as u64, MAX_READ - 1);
        assert!(
            root.read(Path::new("binary"))
                .unwrap_err()
                .message()
                .contains("UTF-8")
        );
    }

    #[test]
    fn a_search_that_is_called_off_ends() {
        let (_folder, root) = root();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let args = SearchFiles {
            text: "needle".to_owned(),
            folder: PathBuf::new(),
        };
        assert!(root.search(&args, &cancel).is_err());
    }
}
