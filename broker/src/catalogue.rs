//! The tools: name to lane, and what the newest registration says of each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::call_error::{CallError, Effect};
use crate::config::Config;
use crate::lane::{Lane, LaneContext};
use crate::policy::{OutOfRange, Policy, PolicyPatch};
use crate::schema::{self, Schema};
use crate::tool_format::{self, Format};

/// Names that are suggested for an unknown one, and how close they must be.
const NEAR_NAMES: usize = 3;
const NEAR_ENOUGH: f64 = 0.75;
/// Names that an unknown one is compared with: the comparison runs where everything else does.
const MOST_COMPARED: usize = 2_000;
const MAX_NAME_BYTES: usize = 128;
const MAX_DESCRIPTION_BYTES: usize = 64 * 1024;

/// A tool as a worker registers it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definition {
    pub(crate) name: Arc<str>,
    pub(crate) description: String,
    pub(crate) input_schema: Bytes,
    pub(crate) policy: PolicyPatch,
}

/// A definition that was checked and made ready: the schema is compiled once for all its calls.
#[derive(Debug)]
pub(crate) struct Revision {
    pub(crate) definition: Definition,
    pub(crate) schema: Schema,
    /// The registered policy with the operator's word over it, and all gaps filled.
    pub(crate) policy: Arc<Policy>,
}

/// A known tool. It stays known when its last worker leaves, until its place is needed.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) lane: Arc<Lane>,
    revision: RwLock<Arc<Revision>>,
}

impl Tool {
    /// What the newest registration says.
    pub(crate) fn revision(&self) -> Arc<Revision> {
        Arc::clone(&self.revision.read())
    }
}

/// Why a tool cannot be registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "tools[].name {0:?}: permitted are 1 to {MAX_NAME_BYTES} characters of A-Z a-z 0-9 _ . : / - that begin with \
         a letter, a digit or _"
    )]
    Name(String),
    #[error(
        "tools[{name}].name is what models know the tool {tool} by; one of the two needs another name"
    )]
    Alias { name: Arc<str>, tool: Arc<str> },
    #[error("tools[{0}].description has {1} bytes; permitted are {MAX_DESCRIPTION_BYTES}")]
    Description(Arc<str>, usize),
    #[error("tools[{0}].{1}")]
    Schema(Arc<str>, schema::Error),
    #[error("tools[{0}].policy.{1}")]
    Policy(Arc<str>, OutOfRange),
    #[error("the broker knows {0} tools, which is max_tools")]
    TooMany(usize),
}

/// All tools.
#[derive(Debug)]
pub(crate) struct Catalogue {
    config: Arc<Config>,
    context: LaneContext,
    /// Handles only; no guard is ever held over anything but a look-up or an insertion. Entries leave in `make_room`.
    by_name: DashMap<Arc<str>, Arc<Tool>>,
    /// Other names that models know tools by, to the tools' own. What a name leads to follows from the tool's own name
    /// alone, so an entry is never wrong; those of forgotten tools leave in `make_room`, where what they shared with a tool
    /// that stays becomes that one's.
    by_alias: DashMap<String, Arc<str>>,
    started: Instant,
}

impl Catalogue {
    pub(crate) fn new(config: Arc<Config>, context: LaneContext) -> Self {
        Self {
            config,
            context,
            by_name: DashMap::new(),
            by_alias: DashMap::new(),
            started: Instant::now(),
        }
    }

    /// A handle to the tool.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Tool>> {
        self.by_name
            .get(name)
            .map(|entry| Arc::clone(entry.value()))
    }

    /// The same for a name that a model may have been given in its place; see `tool_format`. A tool's own name wins.
    pub(crate) fn find_as_called(&self, name: &str) -> Option<Arc<Tool>> {
        self.find(name).or_else(|| {
            let own = Arc::clone(self.by_alias.get(name)?.value());
            self.find(&own)
        })
    }

    /// What to say of a call of a name that nobody has registered; with names that are close if those are wanted, as a
    /// model knows them to which tools were listed in this format.
    pub(crate) fn why_unknown(
        &self,
        name: &str,
        suggest: bool,
        listed: Option<Format>,
    ) -> CallError {
        let age = self.started.elapsed();
        if self.config.tools.contains_key(name) {
            return CallError::no_worker(name, age).telling_effect(Effect::NotStarted);
        }
        let near_names = if suggest {
            self.near_names(name, listed)
        } else {
            Vec::new()
        };
        // Right after a start, workers have not found back yet, and the name may be one of theirs.
        match self.config.no_worker_wait.checked_sub(age) {
            Some(left) if !left.is_zero() => CallError::not_known_yet(name, age, left, near_names)
                .telling_effect(Effect::NotStarted),
            _ => CallError::unknown_tool(name, near_names),
        }
    }

    /// Known names that are close, best first.
    fn near_names(&self, name: &str, listed: Option<Format>) -> Vec<String> {
        if name.len() > MAX_NAME_BYTES {
            return Vec::new();
        }
        let wanted = name.to_lowercase();
        let mut near: Vec<(f64, Arc<str>)> = self
            .by_name
            .iter()
            .take(MOST_COMPARED)
            .map(|entry| {
                (
                    strsim::jaro_winkler(&wanted, &entry.key().to_lowercase()),
                    Arc::clone(entry.key()),
                )
            })
            .filter(|(closeness, _)| *closeness >= NEAR_ENOUGH)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        near.into_iter()
            .filter_map(|(_, name)| match listed {
                None => Some(name.to_string()),
                Some(format) => self.listed_name(&name, format),
            })
            .take(NEAR_NAMES)
            .collect()
    }

    /// What a model knows the tool by. None if that is another tool's name: then it was not listed.
    fn listed_name(&self, tool: &str, format: Format) -> Option<String> {
        let name = format.name_of(tool);
        let found = self.find_as_called(&name)?;
        (**found.lane.tool() == *tool).then(|| name.into_owned())
    }

    /// Every tool, sorted by name.
    pub(crate) fn list(&self) -> Vec<Arc<Tool>> {
        let mut tools: Vec<_> = self
            .by_name
            .iter()
            .map(|entry| Arc::clone(entry.value()))
            .collect();
        tools.sort_by(|a, b| a.lane.tool().cmp(b.lane.tool()));
        tools
    }

    /// Takes the definitions in, all or none. The newest definition of a name is everybody's.
    pub(crate) fn register(&self, definitions: Vec<Definition>) -> Result<Vec<Arc<Tool>>, Error> {
        let revisions: Vec<_> = definitions
            .into_iter()
            .map(|of| self.revise(of))
            .collect::<Result<_, _>>()?;
        let new = revisions
            .iter()
            .filter(|revised| matches!(revised, Revised::New(_)))
            .count();
        self.make_room(new, &revisions)?;
        self.check_names(&revisions)?;
        Ok(revisions
            .into_iter()
            .map(|revised| self.install(revised))
            .collect())
    }

    /// A new tool must not take over the calls of one that models know by its name.
    fn check_names(&self, revisions: &[Revised]) -> Result<(), Error> {
        let is_new = |revised: &&Revised| matches!(revised, Revised::New(_));
        let new: Vec<_> = revisions.iter().filter(is_new).map(Revised::name).collect();
        let mut beside = HashMap::new();
        for &tool in &new {
            beside.extend(tool_format::aliases(tool).map(|alias| (alias, tool)));
        }
        for name in new {
            let known = self.by_alias.get(&**name);
            let known = known.map(|entry| Arc::clone(entry.value()));
            if let Some(tool) = known.or_else(|| beside.get(&**name).map(|&tool| Arc::clone(tool)))
            {
                let name = Arc::clone(name);
                return Err(Error::Alias { name, tool });
            }
        }
        Ok(())
    }

    fn revise(&self, definition: Definition) -> Result<Revised, Error> {
        let known = self.find(&definition.name);
        if let Some(tool) = &known
            && tool.revision().definition == definition
        {
            return Ok(Revised::Same(Arc::clone(tool)));
        }
        check(&definition)?;
        let name = || Arc::clone(&definition.name);
        let schema = Schema::compile(&definition.input_schema)
            .map_err(|error| Error::Schema(name(), error))?;
        definition
            .policy
            .check()
            .map_err(|error| Error::Policy(name(), error))?;
        let operator = self
            .config
            .tools
            .get(&*definition.name)
            .cloned()
            .unwrap_or_default();
        let policy = Arc::new(
            operator
                .over(&definition.policy)
                .effective(self.config.call_timeout),
        );
        let revision = Arc::new(Revision {
            definition,
            schema,
            policy,
        });
        Ok(if known.is_some() {
            Revised::Changed(revision)
        } else {
            Revised::New(revision)
        })
    }

    fn install(&self, revised: Revised) -> Arc<Tool> {
        let revision = match revised {
            Revised::Same(tool) => return tool,
            Revised::New(revision) | Revised::Changed(revision) => revision,
        };
        let name = Arc::clone(&revision.definition.name);
        let tool = match self.by_name.entry(Arc::clone(&name)) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => {
                let lane = Lane::new(name, self.context.clone());
                lane.set_limits(&revision.policy, None);
                let tool = Arc::new(Tool {
                    lane,
                    revision: RwLock::new(revision),
                });
                entry.insert(Arc::clone(&tool));
                self.index(tool.lane.tool());
                return tool;
            }
        };
        {
            // Both under the one lock: of two registrations at once, the same must win in both places.
            let mut current = tool.revision.write();
            tool.lane.set_limits(&revision.policy, current.policy.rate);
            *current = revision;
        }
        tracing::info!(tool = %tool.lane.tool(), "tool redefined by a newer registration");
        tool
    }

    /// Makes a new tool known under its other names. Where two share one, it stays the first one's.
    fn index(&self, name: &Arc<str>) {
        for alias in tool_format::aliases(name) {
            self.by_alias
                .entry(alias)
                .or_insert_with(|| Arc::clone(name));
        }
    }

    /// Takes a definition in with a schema made by a test.
    #[cfg(test)]
    pub(crate) fn install_as_is(&self, definition: Definition, schema: Schema) {
        let policy = Arc::new(definition.policy.effective(self.config.call_timeout));
        let revision = Revision {
            definition,
            schema,
            policy,
        };
        self.install(Revised::New(Arc::new(revision)));
    }

    /// Forgets tools that nobody serves if there is no place for so many more.
    fn make_room(&self, more: usize, wanted: &[Revised]) -> Result<(), Error> {
        if self.by_name.len() + more > self.config.max_tools {
            let wanted: HashSet<&str> = wanted.iter().map(|wanted| &**wanted.name()).collect();
            self.by_name
                .retain(|name, tool| wanted.contains(&**name) || !tool.lane.is_idle());
            // Under this map's guard the other is asked; nowhere is it the other way round.
            self.by_alias
                .retain(|_, name| self.by_name.contains_key(name));
            // What a forgotten tool shared with another is that one's now.
            for tool in self.list() {
                self.index(tool.lane.tool());
            }
        }
        if self.by_name.len() + more > self.config.max_tools {
            return Err(Error::TooMany(self.by_name.len()));
        }
        Ok(())
    }
}

enum Revised {
    Same(Arc<Tool>),
    Changed(Arc<Revision>),
    New(Arc<Revision>),
}

impl Revised {
    fn name(&self) -> &Arc<str> {
        match self {
            Self::Same(tool) => tool.lane.tool(),
            Self::Changed(revision) | Self::New(revision) => &revision.definition.name,
        }
    }
}

fn check(definition: &Definition) -> Result<(), Error> {
    let name = &definition.name;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
    let begins = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !begins || name.len() > MAX_NAME_BYTES || !name.bytes().all(legal) {
        return Err(Error::Name(name.chars().take(MAX_NAME_BYTES).collect()));
    }
    if definition.description.len() > MAX_DESCRIPTION_BYTES {
        return Err(Error::Description(
            Arc::clone(name),
            definition.description.len(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::tests::context;

    fn catalogue(max_tools: usize) -> Catalogue {
        let config = Config {
            max_tools,
            ..Config::default()
        };
        Catalogue::new(Arc::new(config), context())
    }

    fn definition(name: &str) -> Definition {
        Definition {
            name: name.into(),
            description: String::new(),
            input_schema: Bytes::new(),
            policy: PolicyPatch::default(),
        }
    }

    #[tokio::test]
    async fn the_newest_definition_is_everybodys_and_the_same_one_is_not_compiled_again() {
        let catalogue = catalogue(10);
        let first = catalogue.register(vec![definition("search")]).unwrap();
        let before = first[0].revision();
        catalogue.register(vec![definition("search")]).unwrap();
        assert!(Arc::ptr_eq(&before, &first[0].revision()));
        let newer = Definition {
            description: "newer".to_owned(),
            ..definition("search")
        };
        catalogue.register(vec![newer]).unwrap();
        assert_eq!(first[0].revision().definition.description, "newer");
    }

    #[tokio::test]
    async fn registration_is_all_or_nothing_and_names_the_tool() {
        let catalogue = catalogue(10);
        let broken = Definition {
            input_schema: Bytes::from_static(b"{"),
            ..definition("b")
        };
        let error = catalogue
            .register(vec![definition("a"), broken])
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("tools[b].input_schema is not JSON"),
            "{error}"
        );
        assert!(catalogue.find("a").is_none());
        for name in ["", "-x", "a b", "ä", &"x".repeat(129)] {
            assert!(
                matches!(
                    catalogue.register(vec![definition(name)]),
                    Err(Error::Name(_))
                ),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn tools_without_workers_make_room() {
        let catalogue = catalogue(2);
        catalogue
            .register(vec![definition("a"), definition("b")])
            .unwrap();
        catalogue.register(vec![definition("c")]).unwrap();
        assert!(catalogue.find("a").is_none() && catalogue.find("c").is_some());
        catalogue
            .register(["c", "d"].map(definition).to_vec())
            .unwrap();
        assert!(
            catalogue.find("c").is_some(),
            "one that is registered again keeps its place"
        );
        let names = ["x", "y", "z"].map(definition).to_vec();
        assert!(matches!(catalogue.register(names), Err(Error::TooMany(_))));
    }

    #[tokio::test]
    async fn a_tool_is_found_under_the_names_that_models_know_it_by() {
        let catalogue = catalogue(2);
        let tool = catalogue.register(vec![definition("fs.read")]).unwrap();
        let aliases: Vec<_> = tool_format::aliases("fs.read").collect();
        assert!(!aliases.is_empty());
        for name in aliases.iter().map(String::as_str).chain(["fs.read"]) {
            let found = catalogue.find_as_called(name).unwrap();
            assert!(Arc::ptr_eq(&found, &tool[0]), "{name}");
        }
        assert!(
            catalogue.find(&aliases[0]).is_none(),
            "it is no name of its own"
        );
        assert!(catalogue.find_as_called("fs_read").is_none());

        catalogue
            .register(["x", "y"].map(definition).to_vec())
            .unwrap();
        assert!(catalogue.find_as_called(&aliases[0]).is_none());
        assert!(catalogue.by_alias.is_empty(), "forgotten with the tool");
    }

    #[tokio::test]
    async fn a_name_that_models_know_another_tool_by_is_refused() {
        let alias = tool_format::aliases("fs.read").next().unwrap();
        let refused = |catalogue: &Catalogue, names: &[&str]| {
            let names = names.iter().map(|name| definition(name)).collect();
            let error = catalogue.register(names).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "tools[{alias}].name is what models know the tool fs.read by; one of the two needs another name"
                )
            );
        };
        let catalogue = catalogue(10);
        refused(&catalogue, &[&alias, "fs.read"]);
        assert!(catalogue.find("fs.read").is_none(), "all or none");
        catalogue.register(vec![definition("fs.read")]).unwrap();
        refused(&catalogue, &["other", &alias]);
        let found = catalogue.find_as_called(&alias).unwrap();
        assert_eq!(**found.lane.tool(), *"fs.read");
    }

    #[tokio::test]
    async fn a_tool_that_had_its_name_first_keeps_it() {
        let alias = tool_format::aliases("fs.read").next().unwrap();
        let catalogue = catalogue(10);
        catalogue.register(vec![definition(&alias)]).unwrap();
        // Nothing is taken over: the newcomer is called by its own name, and lists leave it out where they cannot have that.
        let both = || vec![definition("fs.read"), definition(&alias)];
        catalogue.register(both()).unwrap();
        catalogue.register(both()).unwrap();
        let found = catalogue.find_as_called(&alias).unwrap();
        assert_eq!(**found.lane.tool(), *alias);
    }

    #[tokio::test]
    async fn an_alias_that_two_tools_share_leads_to_the_one_that_is_left() {
        let [first, second] = ["a.b.c:d/e:f/g:h.i.j.k:l.m", "a.b/c.d/e.f/g.h:i/j:k/l/m"];
        let shared = tool_format::aliases(second).next().unwrap();
        assert!(tool_format::aliases(first).any(|alias| alias == shared));
        let catalogue = catalogue(2);
        catalogue
            .register([first, second].map(definition).to_vec())
            .unwrap();
        let found = catalogue.find_as_called(&shared).unwrap();
        assert_eq!(**found.lane.tool(), *first);
        // The first has to make room.
        catalogue
            .register([second, "c"].map(definition).to_vec())
            .unwrap();
        assert!(catalogue.find(first).is_none());
        let found = catalogue.find_as_called(&shared).unwrap();
        assert_eq!(**found.lane.tool(), *second);
    }

    #[tokio::test]
    async fn near_names_are_those_a_model_may_have_meant() {
        let catalogue = catalogue(10);
        catalogue
            .register(
                ["search_files", "search_web", "calculate"]
                    .map(definition)
                    .to_vec(),
            )
            .unwrap();
        assert_eq!(catalogue.near_names("Search_File", None)[0], "search_files");
        assert!(catalogue.near_names("zzz", None).is_empty());
    }
}
