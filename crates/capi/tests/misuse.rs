//! What callers may do wrong is told by a status, and does nothing.

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outlive_capi::*;

/// A process has one recorder at a time: tests that start one take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(state: &CStr) -> outlive_options {
    outlive_options {
        type_size: size_of::<outlive_options>(),
        name: c"prog".as_ptr(),
        version: null(),
        state: state.as_ptr(),
        area: c"file".as_ptr(),
        command_line: null(),
        events: null(),
        nr_events: 0,
        size_bytes: 512 << 10,
        keep: 0,
        no_overwrite: 0,
        reserved: [0; 4],
    }
}

fn c_path(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.to_str().unwrap()).unwrap()
}

/// Starts, and closes what was started.
fn start(options: *const outlive_options) -> (outlive_status, String) {
    let (mut recorder, mut error) = (null_mut(), null_mut());
    // SAFETY: both are pointers of ours; the options are null or options.
    let status = unsafe { outlive_recorder_start(options, &raw mut recorder, &raw mut error) };
    assert_eq!(recorder.is_null(), status != OUTLIVE_OK);
    // SAFETY: what was started, or null.
    unsafe { outlive_recorder_close(&raw mut recorder) };
    assert!(recorder.is_null());
    (status, message(error))
}

/// The error's message; empty without one. Frees it, twice: the second time it is null.
fn message(mut error: *mut outlive_error) -> String {
    // SAFETY: an error or null.
    let message = unsafe { outlive_error_message(error) };
    let read = |text| {
        // SAFETY: a text.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
    };
    let text = (!message.is_null()).then(|| read(message));
    for _ in 0..2 {
        // SAFETY: an error, and then null.
        unsafe { outlive_error_free(&raw mut error) };
        assert!(error.is_null());
    }
    text.unwrap_or_default()
}

fn declare(
    name: *const c_char,
    fields: *const outlive_field,
    count: usize,
) -> Result<*const outlive_event, (outlive_status, String)> {
    let (mut event, mut error) = (null(), null_mut());
    let system = c"misuse".as_ptr();
    // SAFETY: pointers of ours, or null; fields as many as are said.
    let status = unsafe {
        outlive_event_declare(system, name, fields, count, &raw mut event, &raw mut error)
    };
    match status {
        OUTLIVE_OK => Ok(event),
        status => Err((status, message(error))),
    }
}

fn field(name: &'static CStr, ty: u32) -> outlive_field {
    outlive_field {
        name: name.as_ptr(),
        r#type: ty,
        reserved: 0,
    }
}

fn number(ty: u32, u: u64) -> outlive_value {
    outlive_value {
        r#type: ty,
        len: 0,
        data: outlive_data { u },
    }
}

fn record(event: *const outlive_event, values: &[outlive_value]) -> outlive_status {
    // SAFETY: an event or null, and values.
    unsafe { outlive_record(event, values.as_ptr(), values.len()) }
}

#[test]
fn options_that_cannot_be_are_refused() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let state = c_path(folder.path());
    assert_eq!(start(null()).0, OUTLIVE_NULL_POINTER);
    let refused = |change: &dyn Fn(&mut outlive_options)| {
        let mut options = options(&state);
        change(&mut options);
        start(&raw const options)
    };
    assert_eq!(refused(&|o| o.name = null()).0, OUTLIVE_NULL_POINTER);
    assert_eq!(refused(&|o| o.name = c"\xff".as_ptr()).0, OUTLIVE_NOT_UTF8);
    for size in [0, 8, size_of::<outlive_options>() - 1, 5000, usize::MAX] {
        assert_eq!(refused(&|o| o.type_size = size).0, OUTLIVE_BAD_STRUCT);
    }
    assert_eq!(refused(&|o| o.reserved[3] = 1).0, OUTLIVE_BAD_STRUCT);
    assert_eq!(refused(&|o| o.no_overwrite = 2).0, OUTLIVE_BAD_STRUCT);
    let (status, why) = refused(&|o| o.area = c"floppy".as_ptr());
    assert!(
        status == OUTLIVE_NOT_STARTED && why.contains("floppy"),
        "{why}"
    );
    let (status, why) = refused(&|o| o.command_line = c"trace_instance=".as_ptr());
    assert!(
        status == OUTLIVE_NOT_STARTED && why.contains("command line"),
        "{why}"
    );
    let (status, why) = refused(&|o| o.name = c"a/b".as_ptr());
    assert!(status == OUTLIVE_NOT_STARTED && !why.is_empty(), "{why}");
    assert_eq!(refused(&|_| ()), (OUTLIVE_OK, String::new()));
}

/// One that was compiled with a later header has members that are not known here: zero is as before.
#[test]
fn a_longer_struct_is_taken_if_what_is_new_in_it_is_zero() {
    #[repr(C)]
    struct Later {
        options: outlive_options,
        new: u64,
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let state = c_path(folder.path());
    let mut later = Later {
        options: options(&state),
        new: 0,
    };
    later.options.type_size = size_of::<Later>();
    assert_eq!(start((&raw const later).cast()).0, OUTLIVE_OK);
    later.new = 1;
    assert_eq!(start((&raw const later).cast()).0, OUTLIVE_BAD_STRUCT);
}

#[test]
fn a_second_recorder_is_refused_and_the_run_before_is_told() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let state = c_path(folder.path());
    let options = options(&state);
    let mut recorder = null_mut();
    // SAFETY: options and a pointer of ours, here and below.
    let first =
        unsafe { outlive_recorder_start(&raw const options, &raw mut recorder, null_mut()) };
    assert_eq!(first, OUTLIVE_OK);
    // SAFETY: a recorder.
    unsafe {
        assert_eq!(outlive_previous_verdict(recorder), OUTLIVE_NO_PREVIOUS);
        assert!(outlive_previous_path(recorder).is_null());
    }
    assert_eq!(start(&raw const options).0, OUTLIVE_ALREADY_STARTED);
    // A run without an event is not kept.
    let event = declare(c"kept".as_ptr(), null(), 0).unwrap();
    assert_eq!(record(event, &[]), OUTLIVE_OK);
    // SAFETY: what was started; then null.
    unsafe {
        outlive_recorder_close(&raw mut recorder);
        outlive_recorder_close(&raw mut recorder);
        outlive_recorder_close(null_mut());
    }
    // SAFETY: as above.
    let again =
        unsafe { outlive_recorder_start(&raw const options, &raw mut recorder, null_mut()) };
    assert_eq!(again, OUTLIVE_OK);
    // SAFETY: a recorder.
    let path = unsafe { outlive_previous_path(recorder) };
    assert!(!path.is_null());
    // SAFETY: a text, as long as the recorder is there.
    let path = unsafe { CStr::from_ptr(path) };
    assert!(Path::new(path.to_str().unwrap()).is_dir());
    // SAFETY: a recorder.
    unsafe {
        assert_eq!(outlive_previous_verdict(recorder), OUTLIVE_CLEAN_EXIT);
        outlive_recorder_close(&raw mut recorder);
    }
}

#[test]
fn declarations_that_cannot_be_are_refused() {
    let name = c"refused".as_ptr();
    let one = field(c"x", OUTLIVE_U8);
    let status = |name, fields: &[outlive_field]| {
        declare(name, fields.as_ptr(), fields.len()).unwrap_err().0
    };
    assert_eq!(status(null(), &[one]), OUTLIVE_NULL_POINTER);
    assert_eq!(status(c"\xff".as_ptr(), &[one]), OUTLIVE_NOT_UTF8);
    assert_eq!(status(c"a:b".as_ptr(), &[one]), OUTLIVE_BAD_DECLARATION);
    assert_eq!(status(name, &[one, one]), OUTLIVE_BAD_DECLARATION);
    for ty in [0, 14, u32::MAX] {
        assert_eq!(status(name, &[field(c"x", ty)]), OUTLIVE_BAD_TYPE);
    }
    let mut bad = one;
    bad.name = null();
    assert_eq!(status(name, &[bad]), OUTLIVE_NULL_POINTER);
    bad = one;
    bad.reserved = 1;
    assert_eq!(status(name, &[bad]), OUTLIVE_BAD_STRUCT);
    let null_fields = declare(name, null(), 1).unwrap_err().0;
    assert_eq!(null_fields, OUTLIVE_NULL_POINTER);
    let many = declare(name, &raw const one, usize::MAX).unwrap_err().0;
    assert_eq!(many, OUTLIVE_BAD_COUNT);
    let (_, why) = declare(c"9".as_ptr(), null(), 0).unwrap_err();
    assert!(why.contains("misuse:9") && why.contains("digit"), "{why}");
    // SAFETY: a null pointer for the result, and for the error.
    let nowhere = unsafe { outlive_event_declare(name, name, null(), 0, null_mut(), null_mut()) };
    assert_eq!(nowhere, OUTLIVE_NULL_POINTER);
}

#[test]
fn values_that_do_not_fit_their_event_are_refused_and_nothing_is_recorded() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let state = c_path(folder.path());
    let options = options(&state);
    let mut recorder = null_mut();
    // SAFETY: options and a pointer of ours.
    let started =
        unsafe { outlive_recorder_start(&raw const options, &raw mut recorder, null_mut()) };
    assert_eq!(started, OUTLIVE_OK);
    let fields = [field(c"n", OUTLIVE_U32), field(c"text", OUTLIVE_TEXT)];
    let event = declare(c"step".as_ptr(), fields.as_ptr(), 2).unwrap();
    let text = |bytes: *const u8, len| outlive_value {
        r#type: OUTLIVE_TEXT,
        len,
        data: outlive_data {
            bytes: bytes.cast(),
        },
    };
    let n = number(OUTLIVE_U32, 7);
    let ada = text(b"Ada".as_ptr(), 3);
    assert_eq!(record(null(), &[n, ada]), OUTLIVE_NULL_POINTER);
    assert_eq!(record(event, &[n]), OUTLIVE_BAD_COUNT);
    assert_eq!(record(event, &[n, ada, ada]), OUTLIVE_BAD_COUNT);
    assert_eq!(
        record(event, &[number(OUTLIVE_U64, 7), ada]),
        OUTLIVE_BAD_TYPE
    );
    assert_eq!(record(event, &[number(99, 7), ada]), OUTLIVE_BAD_TYPE);
    assert_eq!(record(event, &[n, text(null(), 1)]), OUTLIVE_NULL_POINTER);
    // SAFETY: an event; null, or a span of ours.
    unsafe {
        assert_eq!(outlive_record(event, null(), 2), OUTLIVE_NULL_POINTER);
        let mut span = outlive_span { id: 1, parent: 1 };
        let begun = outlive_span_begin(event, [n, ada].as_ptr(), 2, &raw mut span);
        assert_eq!((begun, span.id), (OUTLIVE_BAD_KIND, 0));
        assert_eq!(
            outlive_span_begin(event, [n, ada].as_ptr(), 2, null_mut()),
            OUTLIVE_NULL_POINTER
        );
        assert_eq!(outlive_span_end(null_mut()), OUTLIVE_NULL_POINTER);
        assert_eq!(outlive_span_end(&raw mut span), OUTLIVE_OK);
        assert!(!outlive_event_is_enabled(null()) && outlive_event_is_enabled(event));
    }
    assert_eq!(record(event, &[n, text(null(), 0)]), OUTLIVE_OK);
    assert_eq!(record(event, &[n, text(b"\xff".as_ptr(), 1)]), OUTLIVE_OK);
    assert_eq!(recorded(folder.path()), 2);
    // SAFETY: what was started.
    unsafe { outlive_recorder_close(&raw mut recorder) };
    // Nobody to record it: no error.
    assert_eq!(record(event, &[n, ada]), OUTLIVE_OK);
}

/// How many events there are.
fn recorded(state: &Path) -> u64 {
    let folder = outlive_trace::apps::folder(state, "prog").unwrap();
    let state = outlive_trace::StateDir::open(&folder).unwrap();
    let instances = state.read_instances().unwrap();
    let path = instances.instances[0].other["path"].as_str().unwrap();
    outlive_trace::view::View::open(Path::new(path))
        .unwrap()
        .entries()
}

#[test]
fn each_status_has_a_text() {
    let mut texts = Vec::new();
    let text = |status| {
        // SAFETY: a text that is never freed.
        unsafe { CStr::from_ptr(outlive_status_text(status)) }
    };
    for status in OUTLIVE_OK..=OUTLIVE_PANIC {
        assert!(text(status) != c"no status" && !texts.contains(&text(status)));
        texts.push(text(status));
    }
    assert_eq!(text(-1), c"no status");
}

/// Errors that many threads get at the same time are each their own: another thread reads and frees them.
#[test]
fn each_thread_has_its_own_errors_and_another_one_may_read_them() {
    const THREADS: usize = 8;
    const ERRORS: usize = 200;
    struct Error(*mut outlive_error);
    // SAFETY: what it points to belongs to no thread.
    unsafe impl Send for Error {}
    let name = |thread: usize, number: usize| format!("{thread}_{number}");
    let get = |thread, number| {
        let name = std::ffi::CString::new(name(thread, number)).unwrap();
        let (mut event, mut error) = (null(), null_mut());
        let (system, name) = (c"misuse".as_ptr(), name.as_ptr());
        // SAFETY: pointers of ours, and no fields.
        let status = unsafe {
            outlive_event_declare(system, name, null(), 0, &raw mut event, &raw mut error)
        };
        assert_eq!((status, event), (OUTLIVE_BAD_DECLARATION, null()));
        Error(error)
    };
    let made: Vec<Vec<Error>> = std::thread::scope(|scope| {
        let get_all = |thread| move || (0..ERRORS).map(|number| get(thread, number)).collect();
        let threads: Vec<_> = (0..THREADS).map(|i| scope.spawn(get_all(i))).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    std::thread::scope(|scope| {
        for (thread, errors) in made.into_iter().enumerate() {
            scope.spawn(move || {
                for (number, error) in errors.into_iter().enumerate() {
                    // SAFETY: an error.
                    let status = unsafe { outlive_error_status(error.0) };
                    assert_eq!(status, OUTLIVE_BAD_DECLARATION);
                    let text = message(error.0);
                    let wanted = format!("misuse:{} ", name(thread, number));
                    assert!(text.starts_with(&wanted), "{text}");
                }
            });
        }
    });
}
