//! A few tools that are ready to be tried: they need no network and cannot write.
//!
//! Files: `list_files`, `read_file` and `search_files`, below one folder. Odds and ends: `calculate`, `hash`,
//! `current_time` and `sleep`. A small shop, for the story that `toolpool demo` tells: `look_up_product`,
//! `stock_report`, `price_history` (which always fails) and `place_order` (which orders nothing).

mod calculator;
mod files;
mod misc;
mod shop;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::Tool;

/// Why the demo's tools cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder that the file tools are to show cannot be opened, or is no folder.
    #[error("the folder {} cannot be used", root.display())]
    Root {
        /// The folder.
        root: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// All demo tools. The file tools see what is below `root`, and nothing else: no `..`, no absolute path and no
/// symbolic link leads out of it. (Whoever can change files below `root` while a tool runs is trusted not to.)
///
/// Fails if `root` is not a folder that can be read.
pub fn tools(root: &Path) -> Result<Vec<Tool>, Error> {
    let mut tools = files::tools(root).map_err(|source| Error::Root {
        root: root.to_owned(),
        source,
    })?;
    tools.extend(misc::tools());
    tools.extend(shop::tools());
    Ok(tools)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_can_be_registered_and_describes_its_arguments() {
        let tools = tools(&std::env::temp_dir()).unwrap();
        assert_eq!(tools.len(), 11);
        for tool in &tools {
            tool.check().unwrap();
            assert!(tool.description().len() > 20, "{}", tool.name());
            let properties = tool.input_schema()["properties"].as_object();
            for (name, property) in properties.into_iter().flatten() {
                assert!(
                    property["description"].is_string(),
                    "{}.{name}",
                    tool.name()
                );
            }
        }
    }

    #[test]
    fn a_root_that_is_no_folder_is_an_error() {
        assert!(tools(Path::new("/no/such/folder")).is_err());
        assert!(tools(Path::new("/dev/null")).is_err());
    }
}
