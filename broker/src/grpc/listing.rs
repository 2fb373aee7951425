//! The catalogue in pages, as it is and as a provider wants it.

use std::sync::Arc;

use prost::Message;
use toolpool_proto::v1;

use super::PACKET_BYTES;
use super::convert::{self, Malformed};
use crate::catalogue::{Catalogue, Tool};
use crate::tool_format::{Declared, Format};

/// The page that is asked for. It has at least one tool, if there are any left.
pub(super) fn page(
    catalogue: &Catalogue,
    request: v1::ListToolsRequest,
) -> Result<v1::ListToolsResponse, Malformed> {
    let format = request.format.map(convert::tool_format).transpose()?;
    let most = match request.page_size {
        0 => usize::MAX,
        most => most as usize,
    };
    let mut rest = wanted(catalogue, request.names)
        .into_iter()
        .skip_while(|tool| **tool.lane.tool() <= *request.page_token)
        .peekable();
    let mut page = v1::ListToolsResponse::default();
    let (mut declared, mut bytes) = (Vec::new(), 0);
    while page.tools.len() < most
        && bytes < PACKET_BYTES
        && let Some(tool) = rest.next()
    {
        if let Some(format) = format {
            let (tool, adaptation) = declare(catalogue, format, &tool);
            bytes += tool.as_ref().map_or(0, Declared::about_bytes);
            page.adaptations.extend(adaptation);
            declared.extend(tool);
        }
        let entry = convert::catalogue_entry(&tool);
        bytes += entry.encoded_len();
        page.tools.push(entry);
    }
    let last = page.tools.last().and_then(|entry| entry.tool.as_ref());
    if let (Some(_), Some(tool)) = (rest.peek(), last) {
        page.next_page_token.clone_from(&tool.name);
    }
    if let Some(format) = format {
        page.provider_tools = format.list(&declared);
    }
    Ok(page)
}

/// The tools of these names, or all; sorted by name.
fn wanted(catalogue: &Catalogue, mut names: Vec<String>) -> Vec<Arc<Tool>> {
    if names.is_empty() {
        return catalogue.list();
    }
    names.sort_unstable();
    names.dedup();
    let tools = names.iter();
    tools.filter_map(|name| catalogue.find(name)).collect()
}

/// A tool for the provider, and what had to be changed.
fn declare(
    catalogue: &Catalogue,
    format: Format,
    tool: &Arc<Tool>,
) -> (Option<Declared>, Option<v1::Adaptation>) {
    let revision = tool.revision();
    let own = &*revision.definition.name;
    let declared = format.declare(&revision.definition);
    let known = catalogue.find_as_called(&declared.name);
    // Two of a name would have the whole list refused, and a call would go to the other one.
    if known.is_some_and(|known| known.lane.tool() != tool.lane.tool()) {
        let why = format!(
            "name: the tool is left out, since {} is the name of another",
            declared.name
        );
        let adaptation = v1::Adaptation {
            tool: own.to_owned(),
            name: String::new(),
            changes: vec![why],
        };
        return (None, Some(adaptation));
    }
    let changed = declared.name != own || !declared.changes.is_empty();
    let adaptation = changed.then(|| v1::Adaptation {
        tool: own.to_owned(),
        name: declared.name.clone(),
        changes: declared.changes.clone(),
    });
    (Some(declared), adaptation)
}
