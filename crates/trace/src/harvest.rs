//! A harvest: what is being taken out of a kernel's own persistent instance, until it is a generation.
//!
//! A kernel gives some of its buffers only by consuming them. So what it says of them is saved first,
//! then its sub-buffers go, one `read` each, straight into a mapped file, and from there into a region.
//!
//! ```text
//! STATE/harvest/INSTANCE/about.json   what is harvested, of which boot
//! STATE/harvest/INSTANCE/kernel/      the kernel's own words: nothing was consumed before they are here
//! STATE/harvest/INSTANCE/cpuN.pages   sub-buffers as they were read, one after the other, then blank ones
//! STATE/harvest/INSTANCE/region       all of it as a region, when everything was read
//! ```
//!
//! The folder gets its name when `kernel/` is durable. A kill at any place is followed by [`Harvest::find`],
//! which tells how far it had come.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use outlive_ring::layout::{SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::{Memory, MemoryMut};
use serde::{Deserialize, Serialize};

use crate::generation::{keep_by_move, list_instance};
use crate::state::read_small;
use crate::{
    Access, Error, Generation, Mapping, Meta, StateDir, StateLock, durable, failpoint, name, tail,
};

/// Folder of the kernel's own words, in a harvest and in a generation.
pub const KERNEL: &str = "kernel";
/// Suffix of a folder that is being made.
const UNNAMED: &str = ".new";
/// Sub-buffers that are read before they are synced: at most so many are at risk in a crash of the
/// machine, none in that of a program.
const BATCH: usize = 64;

/// The steps of a harvest at which a test may kill it, for [`failpoint`].
pub const HARVEST_STEPS: [&str; 8] = [
    "harvest-saved",
    "harvest-named",
    "harvest-read",
    "harvest-batch",
    "harvest-consumed",
    "harvest-region",
    "harvest-kept",
    "harvest-tidied",
];

/// What `about.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct About {
    /// The instance that recorded.
    pub instance: String,
    /// The instance that is read: itself, or a backup of it.
    pub source: String,
    /// Number of the run that began the harvest, and so of the generation.
    pub seq: u64,
    /// The boot that the harvest was begun in: hexadecimal digits.
    pub boot_id: String,
    /// What tells these events from those of any other recording, as the kernel counted them.
    pub fingerprint: Vec<String>,
    /// Events that there were to be read.
    pub entries: u64,
    /// Whether all of them were.
    #[serde(default)]
    pub is_drained: bool,
    /// Which of the kernel's own words are longer than what was saved of them.
    #[serde(default)]
    pub cut: Vec<String>,
}

impl About {
    /// Of a harvest that is to be begun.
    #[must_use]
    pub fn new(instance: &str, source: &str, seq: u64, boot_id: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            source: source.to_owned(),
            seq,
            boot_id: boot_id.to_owned(),
            fingerprint: Vec::new(),
            entries: 0,
            is_drained: false,
            cut: Vec::new(),
        }
    }
}

/// A harvest that was begun.
#[derive(Debug)]
pub struct Harvest {
    path: PathBuf,
    about: About,
}

impl Harvest {
    /// The harvest of an instance that a killed start had begun. One whose generation is there
    /// already is tidied away.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::Io`]; [`Error::DamagedState`] if it does not say what it is.
    pub fn find(state: &StateDir, lock: &StateLock, instance: &str) -> Result<Option<Self>, Error> {
        let path = folder(state, instance)?;
        let about = path.join("about.json");
        let Some(text) = read_small(&about)? else {
            return Ok(None);
        };
        let about = serde_json::from_slice(&text).map_err(|error| Error::DamagedState {
            path: about,
            why: error.to_string(),
            help: "its folder has what was read of a kernel's instance: move it away to go on without it",
        })?;
        let harvest = Self { path, about };
        let mut kept = list_instance(state, instance)?.into_iter();
        match kept.find(|kept| kept.seq() == harvest.about.seq) {
            Some(generation) => harvest.tidy(lock, &generation).map(|()| None),
            None => Ok(Some(harvest)),
        }
    }

    /// Begins a harvest: `save` writes the kernel's own words into a folder, which is then synced, and notes
    /// which of them it has cut.
    ///
    /// # Errors
    ///
    /// What `save` returns, or [`Error::Io`]. Then nothing was begun.
    pub fn begin<E: From<Error>>(
        state: &StateDir,
        _lock: &StateLock,
        mut about: About,
        save: impl FnOnce(&Path, &mut About) -> Result<(), E>,
    ) -> Result<Self, E> {
        let path = folder(state, &about.instance)?;
        durable::private_dir(durable::parent(&path))?;
        let unnamed = durable::with_suffix(&path, UNNAMED);
        remove_folder(&unnamed)?;
        durable::private_dir(&unnamed)?;
        let words = unnamed.join(KERNEL);
        durable::private_dir(&words)?;
        save(&words, &mut about)?;
        sync_files(&words)?;
        write_about(&unnamed, &about)?;
        failpoint::reached("harvest-saved");
        durable::rename_new(&unnamed, &path).map_err(Error::io("name", &path))?;
        durable::sync_dir(durable::parent(&path))?;
        durable::sync_dir(state.path())?;
        failpoint::reached("harvest-named");
        Ok(Self { path, about })
    }

    /// What is harvested.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Notes that the kernel has nothing more.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn set_drained(&mut self) -> Result<(), Error> {
        self.about.is_drained = true;
        write_about(&self.path, &self.about)
    }

    /// Where one of the kernel's own words is.
    #[must_use]
    pub fn word(&self, name: &str) -> PathBuf {
        self.path.join(KERNEL).join(name)
    }

    /// The file of a CPU's sub-buffers, with room for `capacity` of them when it is made. `None` if
    /// there is none and `capacity` is 0. It grows where they are more.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn pages(&self, cpu: u32, capacity: usize) -> Result<Option<PageFile>, Error> {
        let path = self.path.join(format!("cpu{cpu}.pages"));
        let file = match durable::open_private(&path)? {
            Some(file) => file,
            None if capacity == 0 => return Ok(None),
            None => {
                let part = durable::with_suffix(&path, ".part");
                durable::remove_if_there(&part)?;
                let file = durable::create_allocated(&part, (capacity * SUBBUF_SIZE) as u64)?;
                fs::rename(&part, &path).map_err(Error::io("name", &path))?;
                durable::sync_dir(&self.path)?;
                file
            }
        };
        PageFile::open(file, path).map(Some)
    }

    /// Makes a generation of it: `write` gets blank memory of `len_bytes` for the region. With
    /// `keep_text` it has the kernel's text too. What was read is removed only then.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], [`Error::Io`], or what `write` returns; nothing is lost then.
    pub fn keep<E: From<Error>>(
        self,
        state: &StateDir,
        lock: &StateLock,
        meta: &Meta,
        len_bytes: u64,
        write: impl FnOnce(&Mapping) -> Result<(), E>,
    ) -> Result<Generation, E> {
        let region = self.path.join("region");
        tail::write_file(&region, len_bytes, write)?;
        failpoint::reached("harvest-region");
        let generation = keep_by_move(state, lock, &region, meta)?;
        failpoint::reached("harvest-kept");
        self.tidy(lock, &generation)?;
        failpoint::reached("harvest-tidied");
        Ok(generation)
    }

    /// Removes the kernel's text, which says again what was read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn drop_text(&self) -> Result<(), Error> {
        durable::remove_if_there(&self.word("trace"))
    }

    /// Gives the generation the kernel's own words, and removes the rest.
    fn tidy(self, _lock: &StateLock, generation: &Generation) -> Result<(), Error> {
        let words = self.path.join(KERNEL);
        let kept = generation.path().join(KERNEL);
        if words.exists() && !kept.exists() {
            durable::rename_new(&words, &kept)
                .map_err(Error::io("move to its generation", &words))?;
            durable::sync_dir(generation.path())?;
        }
        // Without this file it is no harvest any more.
        durable::remove_if_there(&self.path.join("about.json"))?;
        durable::sync_dir(&self.path)?;
        remove_folder(&self.path)
    }
}

/// Sub-buffers, one after the other, as a kernel gave them.
#[derive(Debug)]
pub struct PageFile {
    file: File,
    mapping: Mapping,
    path: PathBuf,
    pages: usize,
    synced: usize,
}

impl PageFile {
    fn open(file: File, path: PathBuf) -> Result<Self, Error> {
        let mapping = map_whole(&file, &path)?;
        let capacity = mapping.len() / SUBBUF_SIZE;
        let is_blank = |page: &usize| {
            let at = page * SUBBUF_SIZE;
            mapping.load_u64(at) == 0 && mapping.load_u64(at + 8) == 0
        };
        let pages = (0..capacity).find(is_blank).unwrap_or(capacity);
        Ok(Self {
            file,
            mapping,
            path,
            pages,
            synced: 0,
        })
    }

    /// Sub-buffers that are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// A sub-buffer.
    #[must_use]
    pub fn page(&self, number: usize) -> Box<[u8; SUBBUF_SIZE]> {
        let mut page = Box::new([0; SUBBUF_SIZE]);
        if number < self.pages {
            self.mapping.read(number * SUBBUF_SIZE, &mut page[..]);
        }
        page
    }

    /// Reads one sub-buffer of `trace_pipe_raw`; `false` if there is none. The kernel has it no more
    /// then, and the file has. Each batch is synced before the next is read. A file that is full grows: after
    /// each crash of the machine the kernel gives the last one once more, and of a damaged ring it cannot
    /// be known how many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the read or a sync fails, [`Error::NoSpace`] if the file cannot grow.
    pub fn take(&mut self, raw: impl AsFd) -> Result<bool, Error> {
        if self.pages - self.synced >= BATCH {
            self.sync()?;
            failpoint::reached("harvest-batch");
        }
        let at = self.pages * SUBBUF_SIZE;
        if at + SUBBUF_SIZE > self.mapping.len() {
            self.grow()?;
        }
        if let Some(memory) = self.mapping.memory_mut() {
            // The page is made present first, so that nothing can end the read in its midst.
            memory.store_u64(at, 0);
        }
        match self.mapping.read_into(at..at + SUBBUF_SIZE, raw) {
            Ok(0) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(Error::io("read sub-buffers into", &self.path)(error)),
            Ok(len) if len < SUBBUF_HEADER => Ok(false),
            Ok(_) => {
                self.pages += 1;
                failpoint::reached("harvest-read");
                Ok(true)
            }
        }
    }

    /// Makes room for a batch more.
    fn grow(&mut self) -> Result<(), Error> {
        let len = (self.pages + BATCH) * SUBBUF_SIZE;
        durable::allocate(&self.file, &self.path, len as u64)?;
        let synced = self.file.sync_all();
        synced.map_err(Error::io("sync", &self.path))?;
        self.mapping = map_whole(&self.file, &self.path)?;
        Ok(())
    }

    /// Makes what was read durable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<(), Error> {
        let range = self.synced * SUBBUF_SIZE..self.pages * SUBBUF_SIZE;
        self.mapping
            .sync(range)
            .map_err(Error::io("sync", &self.path))?;
        self.synced = self.pages;
        Ok(())
    }
}

fn map_whole(file: &File, path: &Path) -> Result<Mapping, Error> {
    let len = file.metadata().map_err(Error::io("look at", path))?.len();
    Mapping::of_file(file, path, len, Access::ReadWrite)
}

fn folder(state: &StateDir, instance: &str) -> Result<PathBuf, Error> {
    Ok(state.path().join("harvest").join(name::check(instance)?))
}

fn write_about(folder: &Path, about: &About) -> Result<(), Error> {
    let path = folder.join("about.json");
    let text = serde_json::to_vec_pretty(about)
        .map_err(|error| Error::io("write", &path)(io::Error::from(error)))?;
    durable::write_atomic(&path, &text)
}

fn sync_files(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        file.sync_all().map_err(Error::io("sync", &path))?;
    }
    durable::sync_dir(folder)
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::list;
    use crate::testing::SmallTmpfs;

    struct Place {
        folder: tempfile::TempDir,
        state: StateDir,
        lock: StateLock,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let state = StateDir::open(&folder.path().join("state")).unwrap();
            let lock = state.try_lock_exclusive().unwrap();
            Self {
                folder,
                state,
                lock,
            }
        }

        fn begin(&self) -> Harvest {
            let save = |folder: &Path, about: &mut About| {
                about.cut.push("trace".to_owned());
                let path = folder.join("trace");
                fs::write(&path, "text").map_err(Error::io("write", &path))
            };
            let about = About::new("a", "backup", 3, "00");
            Harvest::begin(&self.state, &self.lock, about, save).unwrap()
        }

        fn find(&self) -> Option<Harvest> {
            Harvest::find(&self.state, &self.lock, "a").unwrap()
        }

        /// A file that gives these sub-buffers, as `trace_pipe_raw` does.
        fn raw(&self, pages: std::ops::RangeInclusive<u8>) -> File {
            let path = self.folder.path().join("raw");
            let bytes: Vec<u8> = pages.flat_map(|page| [page; SUBBUF_SIZE]).collect();
            fs::write(&path, bytes).unwrap();
            File::open(path).unwrap()
        }
    }

    fn write(mapping: &Mapping) -> Result<(), Error> {
        mapping.memory_mut().unwrap().store_u64(0, 7);
        Ok(())
    }

    #[test]
    fn what_was_read_is_there_after_a_kill_and_is_gone_on_with() {
        let place = Place::new();
        let raw = place.raw(1..=3);
        let mut pages = place.begin().pages(0, 4).unwrap().unwrap();
        assert!(pages.take(&raw).unwrap() && pages.take(&raw).unwrap());
        // Neither synced nor closed in order.
        std::mem::forget(pages);
        let found = place.find().unwrap();
        assert_eq!(found.about().cut, ["trace"]);
        assert!(found.pages(1, 0).unwrap().is_none());
        let mut pages = found.pages(0, 4).unwrap().unwrap();
        assert_eq!((pages.len(), pages.page(1)[9]), (2, 2));
        assert!(pages.take(&raw).unwrap());
        assert!(!pages.take(&raw).unwrap(), "it is empty");
        assert_eq!((pages.len(), pages.page(2)[4095]), (3, 3));
        pages.sync().unwrap();
    }

    /// After each crash of the machine the kernel gives the last one once more.
    #[test]
    fn full_ring_is_gone_on_with_after_any_number_of_crashes() {
        let place = Place::new();
        let begun = place.begin();
        for given in [1..=3, 3..=3, 3..=3, 3..=3] {
            let raw = place.raw(given.clone());
            let mut pages = begun.pages(0, 4).unwrap().unwrap();
            for _ in given {
                assert!(pages.take(&raw).unwrap());
            }
            assert!(!pages.take(&raw).unwrap(), "it is empty");
        }
        let pages = begun.pages(0, 0).unwrap().unwrap();
        let first: Vec<u8> = (0..pages.len()).map(|at| pages.page(at)[9]).collect();
        assert_eq!(first, [1, 2, 3, 3, 3, 3]);
    }

    #[test]
    fn what_finds_no_room_is_left_in_the_kernel() {
        let Some(tmpfs) = SmallTmpfs::mount("64k") else {
            return;
        };
        let place = Place::new();
        let path = tmpfs.path().join("cpu0.pages");
        let file = durable::create_allocated(&path, SUBBUF_SIZE as u64).unwrap();
        let mut pages = PageFile::open(file, path).unwrap();
        let mut raw = place.raw(1..=2);
        assert!(pages.take(&raw).unwrap());
        assert!(matches!(pages.take(&raw), Err(Error::NoSpace { .. })));
        assert_eq!(pages.len(), 1);
        assert_eq!(
            io::Seek::stream_position(&mut raw).unwrap(),
            SUBBUF_SIZE as u64
        );
    }

    #[test]
    fn generation_gets_the_kernels_words_also_where_a_kill_came_between() {
        let place = Place::new();
        let meta = Meta::new("a", 3, "kernel");
        // As a kill right behind the generation's naming leaves it.
        let begun = place.begin();
        let region = begun.path.join("region");
        tail::write_file(&region, 4096, write).unwrap();
        keep_by_move(&place.state, &place.lock, &region, &meta).unwrap();
        assert!(place.find().is_none());
        let kept = list(&place.state).unwrap().remove(0);
        assert_eq!(fs::read(kept.path().join("kernel/trace")).unwrap(), b"text");
        assert!(!folder(&place.state, "a").unwrap().exists());
        assert!(place.find().is_none());
    }

    #[test]
    fn harvest_that_was_not_named_is_begun_anew() {
        let place = Place::new();
        let unnamed = durable::with_suffix(&place.begin().path, UNNAMED);
        fs::rename(folder(&place.state, "a").unwrap(), &unnamed).unwrap();
        assert!(place.find().is_none());
        let begun = place.begin();
        begun.drop_text().unwrap();
        let meta = Meta::new("a", 3, "kernel");
        let kept = begun.keep(&place.state, &place.lock, &meta, 4096, write);
        assert!(kept.unwrap().path().join("kernel").is_dir());
        assert!(!unnamed.exists());
    }

    #[test]
    fn harvest_that_does_not_say_what_it_is_is_not_thrown_away() {
        let place = Place::new();
        let begun = place.begin();
        fs::write(begun.path.join("about.json"), "{").unwrap();
        let error = Harvest::find(&place.state, &place.lock, "a").unwrap_err();
        assert!(matches!(error, Error::DamagedState { .. }), "{error}");
        assert!(begun.path.join("kernel/trace").exists());
    }
}
