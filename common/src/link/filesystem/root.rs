//! The root folder: where things are in it, and whether it is still the one
//! that was opened.

use super::disk;
use super::names::encoded;
use super::options::{Access, Options};
use crate::link::Fault;
use crate::system::folder;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The version of the layout; another one is refused.
const FORMAT: u32 = 1;
/// The file that makes a folder ours. Written last, so a root that has it is
/// whole.
const MARKER: &str = "clutch-spool.json";
/// Locked while something is declared.
const DECLARING: &str = ".declaring";
const FOLDERS: [&str; 4] = ["queues", "sessions", "leases", "quarantine"];

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
    /// Tells this spool from every other one.
    spool: Uuid,
    /// Those that were here before, which are gone: what was in them is not to be had
    /// any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaces: Vec<Uuid>,
}

/// An open root.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// How it is used.
    pub(super) options: Options,
    /// The identity of the marker file.
    identity: Identity,
    /// Which spool it is.
    pub(super) spool: Uuid,
    /// The spools that it takes the place of.
    replaces: Vec<Uuid>,
}

/// Device, inode and time of writing. A file that is made after another one was deleted
/// may have its inode.
type Identity = (u64, u64, i64, i64);

impl Root {
    /// Makes a folder a root, unless it is one: an empty folder, or a new one in a
    /// folder that exists. A root made so takes the place of the earlier ones.
    ///
    /// # Errors
    /// When the folder holds something else, is of another format, or cannot be
    /// written to.
    ///
    /// Returns which spool it is.
    pub(super) fn create(options: &Options, earlier: Vec<Uuid>) -> Result<Uuid, Fault> {
        let root = &options.root;
        let failed = |error: std::io::Error| disk::fault("making the spool folder", root, &error);
        if root.exists() && !root.is_dir() {
            return Err(Fault::Mismatch(format!("{} is not a folder", root.display())));
        }
        disk::make_folder(root, options.access).map_err(failed)?;
        let names = disk::names(root).map_err(failed)?;
        let marked = names.iter().any(|name| name == MARKER);
        let known = |name: &String| FOLDERS.contains(&name.as_str()) || is_passing(name);
        if !marked && !names.iter().all(known) {
            return Err(foreign(root));
        }
        if marked {
            Self::open(options)?;
        }
        for folder in FOLDERS {
            disk::make_folder(&root.join(folder), options.access).map_err(failed)?;
        }
        if options.access == Access::Private {
            keep_private(root);
        }
        if !marked {
            let marker = Marker { format: FORMAT, spool: Uuid::now_v7(), replaces: earlier };
            let text = serde_json::to_vec(&marker).map_err(|error| failed(error.into()))?;
            disk::replace(&root.join(MARKER), &text, options.access).map_err(failed)?;
        }
        Ok(Self::open(options)?.spool)
    }

    /// Opens a root.
    ///
    /// # Errors
    /// [`Fault::Unreachable`] when there is none (yet, or for now), and
    /// [`Fault::Mismatch`] when the folder is something else.
    pub(super) fn open(options: &Options) -> Result<Self, Fault> {
        let root = &options.root;
        let marker = root.join(MARKER);
        let text = match std::fs::read_to_string(&marker) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(absent(root)),
            Err(error) => return Err(disk::fault("reading", &marker, &error)),
        };
        let marked = serde_json::from_str::<Marker>(&text).ok();
        let Some(Marker { spool, replaces, .. }) = marked.filter(|marker| marker.format == FORMAT)
        else {
            return Err(Fault::Mismatch(format!(
                "{} says {:?}, and this program reads format {FORMAT}: use the version of Clutch \
                 that made the folder, or another folder",
                marker.display(),
                text.trim()
            )));
        };
        let identity =
            identity(&marker).map_err(|error| disk::fault("reading", &marker, &error))?;
        let is_it = |wanted: Uuid| wanted == spool || replaces.contains(&wanted);
        if options.spool.is_some_and(|wanted| !is_it(wanted)) {
            return Err(Fault::Mismatch(format!(
                "{} is the spool {spool}, and not the one that this was provisioned for ({}): is \
                 the right file system mounted? If the folder was deleted, and the new one \
                 provisioned by a service with other records, this needs the new endpoint.toml",
                root.display(),
                options.spool.unwrap_or_default()
            )));
        }
        Ok(Self { options: options.clone(), identity, spool, replaces })
    }

    /// Whether it takes the place of another one.
    pub(super) fn replaces(&self, other: Uuid) -> bool {
        self.replaces.contains(&other)
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.options.root
    }

    /// The access that files made in it get.
    pub(super) fn access(&self) -> Access {
        self.options.access
    }

    /// Looks whether the root is still the one that was opened.
    ///
    /// # Errors
    /// [`Fault::Closed`] when it is gone, or another one is in its place.
    pub(super) fn is_there(&self) -> Result<(), Fault> {
        match identity(&self.path().join(MARKER)) {
            Ok(found) if found == self.identity => Ok(()),
            Ok(_) => Err(Fault::Closed(format!(
                "another folder is in the place of {}",
                self.path().display()
            ))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Fault::Closed(format!("the folder {} is gone", self.path().display())))
            }
            Err(error) => Err(disk::fault("reading", self.path(), &error)),
        }
    }

    /// Turns an error below the root into the fault of the link.
    pub(super) fn fault(&self, doing: &str, path: &Path, error: &std::io::Error) -> Fault {
        self.is_there().err().unwrap_or_else(|| disk::fault(doing, path, error))
    }

    /// The lock for declaring.
    pub(super) fn declaring(&self) -> PathBuf {
        self.path().join(DECLARING)
    }

    /// The file with exchanges, queues and bindings.
    pub(super) fn topology(&self) -> PathBuf {
        self.path().join("topology.json")
    }

    /// A queue's folder.
    pub(super) fn queue(&self, name: &str) -> PathBuf {
        self.path().join("queues").join(encoded(name))
    }

    /// Where a queue's groups wait: a folder for each producer.
    pub(super) fn ready(&self, queue: &str) -> PathBuf {
        self.queue(queue).join("ready")
    }

    /// Where a queue's claimed groups are: a folder for each consumer.
    pub(super) fn claimed(&self, queue: &str) -> PathBuf {
        self.queue(queue).join("claimed")
    }

    /// A session's lock.
    pub(super) fn session(&self, id: &str) -> PathBuf {
        self.path().join("sessions").join(id)
    }

    /// A lease's lock.
    pub(super) fn lease(&self, name: &str) -> PathBuf {
        self.path().join("leases").join(encoded(name))
    }

    /// Where files go that cannot be read.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.path().join("quarantine")
    }
}

/// Takes a spool from other users, unless it was made for a group.
fn keep_private(root: &Path) {
    for folder in FOLDERS.map(|name| root.join(name)).iter().chain([&root.to_owned()]) {
        let of_a_group = folder.metadata().is_ok_and(|found| found.mode() & 0o2000 != 0);
        if let Err(error) = if of_a_group { Ok(()) } else { folder::tighten(folder) } {
            tracing::warn!(folder = %folder.display(), %error, "other users can look into it");
        }
    }
}

/// Whether a name at the root is one of ours that comes and goes: what is being
/// written, or tried.
pub(super) fn is_passing(name: &str) -> bool {
    let prefixes = [".new-", ".check-", ".topology.json.", ".clutch-spool.json."];
    let id = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
    name == DECLARING || id.is_some_and(|id| Uuid::try_parse(id).is_ok())
}

fn identity(path: &Path) -> std::io::Result<Identity> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

fn absent(root: &Path) -> Fault {
    match disk::names(root) {
        Ok(names) if !names.iter().all(|name| is_passing(name)) => foreign(root),
        Ok(_) if root.is_dir() => Fault::Unreachable(format!(
            "the folder {} is empty: it is not mounted, or nothing was provisioned in it yet",
            root.display()
        )),
        Ok(_) => Fault::Unreachable(format!(
            "there is no folder {}: it is not mounted, or nothing was provisioned in it yet",
            root.display()
        )),
        Err(error) => disk::fault("looking into", root, &error),
    }
}

fn foreign(root: &Path) -> Fault {
    Fault::Mismatch(format!(
        "{} holds other things than Clutch's: give a folder of its own",
        root.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn options(root: PathBuf) -> Options {
        let url = url::Url::from_file_path(root).unwrap();
        Options::parse(&url).unwrap()
    }

    #[test]
    fn a_root_is_made_once_and_private() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path().join("spool"));
        assert!(matches!(Root::open(&options), Err(Fault::Unreachable(_))));
        Root::create(&options, Vec::new()).unwrap();
        let marker = options.root.join(MARKER);
        let made = identity(&marker).unwrap();
        Root::create(&options, Vec::new()).unwrap();
        assert_eq!(identity(&marker).unwrap(), made);
        for folder in FOLDERS.map(|name| options.root.join(name)).iter().chain([&options.root]) {
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(marker.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_others_could_enter_is_taken_from_them_but_not_from_a_group_it_was_made_for() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path().join("spool"));
        for (before, after) in [(0o755, 0o700), (0o2770, 0o2770)] {
            std::fs::create_dir_all(&options.root).unwrap();
            std::fs::set_permissions(&options.root, std::fs::Permissions::from_mode(before))
                .unwrap();
            Root::create(&options, Vec::new()).unwrap();
            let mode = options.root.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, after);
        }
    }

    #[test]
    fn a_group_may_share_what_was_made_for_it_whatever_the_umask() {
        let temp = tempfile::tempdir().unwrap();
        let options = Options { access: Access::Group, ..options(temp.path().join("spool")) };
        Root::create(&options, Vec::new()).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&options.root), 0o2770);
        assert_eq!(mode(&options.root.join(MARKER)), 0o660);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path().join("theirs"));
        std::fs::create_dir(&options.root).unwrap();
        let empty = Root::open(&options).unwrap_err();
        assert!(matches!(&empty, Fault::Unreachable(text) if text.contains("is empty")), "{empty}");
        std::fs::write(options.root.join("thesis.tex"), b"").unwrap();
        for refused in
            [Root::create(&options, Vec::new()).map(|_| ()), Root::open(&options).map(|_| ())]
        {
            assert!(matches!(refused, Err(Fault::Mismatch(_))), "{refused:?}");
        }
        std::fs::write(options.root.join(MARKER), b"{\"format\": 9}").unwrap();
        let other = Root::create(&options, Vec::new()).unwrap_err().to_string();
        assert!(other.contains("format 1") && other.contains('9'), "{other}");
    }

    #[test]
    fn a_home_with_nothing_but_hidden_files_is_somebodys() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path().join("home"));
        std::fs::create_dir_all(options.root.join(".ssh")).unwrap();
        for refused in
            [Root::create(&options, Vec::new()).map(|_| ()), Root::open(&options).map(|_| ())]
        {
            assert!(matches!(refused, Err(Fault::Mismatch(_))), "{refused:?}");
        }
        assert!(!is_passing(".ssh") && !is_passing(".new-thing") && is_passing(".declaring"));
    }

    #[test]
    fn folders_that_a_restore_dropped_are_made_again_and_the_spool_stays_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path().join("spool"));
        let spool = Root::create(&options, Vec::new()).unwrap();
        std::fs::remove_dir(options.root.join("leases")).unwrap();
        assert_eq!(Root::create(&options, Vec::new()).unwrap(), spool);
        assert!(options.root.join("leases").is_dir());
    }

    #[test]
    fn another_spool_than_the_one_provisioned_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path().join("spool"));
        let spool = Root::create(&options, Vec::new()).unwrap();
        Root::open(&Options { spool: Some(spool), ..options.clone() }).unwrap();
        let other = Root::open(&Options { spool: Some(Uuid::nil()), ..options }).unwrap_err();
        assert!(matches!(&other, Fault::Mismatch(text) if text.contains("mounted")), "{other}");
    }

    #[test]
    fn a_spool_is_also_those_whose_place_it_was_given_and_keeps_that() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path().join("spool"));
        let first = Root::create(&options, Vec::new()).unwrap();
        let named = Options { spool: Some(first), ..options.clone() };
        let before = Root::open(&named).unwrap();
        std::fs::remove_dir_all(&options.root).unwrap();
        let second = Root::create(&options, vec![first]).unwrap();
        assert!(matches!(before.is_there(), Err(Fault::Closed(_))), "it is taken for the first");
        Root::create(&options, Vec::new()).unwrap();
        let root = Root::open(&named).unwrap();
        assert!(root.spool == second && root.replaces(first) && !root.replaces(second));
    }

    #[test]
    fn a_root_that_was_moved_or_replaced_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path().join("spool"));
        Root::create(&options, Vec::new()).unwrap();
        let root = Root::open(&options).unwrap();
        root.is_there().unwrap();
        let aside = temp.path().join("aside");
        std::fs::rename(&options.root, &aside).unwrap();
        assert!(matches!(root.is_there(), Err(Fault::Closed(_))));
        Root::create(&options, Vec::new()).unwrap();
        assert!(matches!(root.is_there(), Err(Fault::Closed(_))));
        std::fs::remove_dir_all(&options.root).unwrap();
        std::fs::rename(&aside, &options.root).unwrap();
        root.is_there().unwrap();
    }
}
