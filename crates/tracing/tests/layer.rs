//! What readers see of the events and spans that a program's `tracing` calls make.

mod common;

use std::sync::Arc;

use common::{Folder, recorded, start, texts, turn, with_layer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

/// An event's text without its name, which has the line.
fn fields(text: &str) -> &str {
    text.split_once(": ").unwrap().1
}

#[test]
fn every_type_of_field_is_shown_as_it_was_given() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    with_layer(|| {
        tracing::info!(
            name: "types",
            a = -1i64,
            b = u64::MAX,
            c = 2.5f64,
            d = true,
            e = "text",
            f = &[1u8, 255][..],
            g = ?Some(1),
            h = %'x',
            i = u128::MAX,
            j = &std::fmt::Error as &dyn std::error::Error,
            "and {} more",
            1
        );
    });
    assert_eq!(
        texts(&folder),
        [
            "types: level=INFO span=0 message=and 1 more a=-1 b=18446744073709551615 c=2.5 d=true e=text \
          f={0x1,0xff} g=Some(1) h=x i=340282366920938463463374607431768211455 \
          j=an error occurred when formatting an argument"
        ]
    );
}

#[test]
fn an_event_has_its_target_its_place_and_its_level() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    let line = line!() + 2;
    with_layer(|| {
        tracing::warn!("here");
        tracing::error!(name: "check-out", target: "shop::till 1", "there");
    });
    let events = recorded(&folder);
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let place = format!("layer:layer_{line}");
    assert_eq!(names, [place.as_str(), "shop__till_1:check_out"]);
    let levels: Vec<u64> = events.iter().map(|event| event.u64("level")).collect();
    assert_eq!(levels, [2, 1]);
}

/// Both have the fields that have values, with the types that they have.
#[test]
fn a_call_site_whose_fields_differ_is_several_events() {
    fn show(value: &impl tracing::Value, option: Option<u64>) {
        tracing::info!(name: "generic", value, option);
    }
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    with_layer(|| {
        show(&1u64, None);
        show(&"one", Some(2));
        show(&3u64, None);
        show(&-4i64, Some(4));
    });
    let texts = texts(&folder);
    let texts: Vec<_> = texts.iter().map(|text| fields(text)).collect();
    assert_eq!(
        texts,
        [
            "level=INFO span=0 value=1",
            "level=INFO span=0 value=one option=2",
            "level=INFO span=0 value=3",
            "level=INFO span=0 value=-4 option=4",
        ]
    );
}

#[test]
fn from_its_ninth_shape_on_a_call_site_has_texts() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    with_layer(|| {
        for bits in 0..16u64 {
            let option = |bit: u64| (bits & bit != 0).then_some(bit);
            tracing::info!(name: "many", a = option(1), b = option(2), c = option(4), d = option(8));
        }
    });
    let texts = texts(&folder);
    assert_eq!(texts.len(), 16);
    assert_eq!(fields(&texts[7]), "level=INFO span=0 a=1 b=2 c=4");
    assert_eq!(fields(&texts[8]), "level=INFO span=0 a= b= c= d=8");
    assert_eq!(fields(&texts[13]), "level=INFO span=0 a=1 b= c=4 d=8");
    assert_eq!(fields(&texts[15]), "level=INFO span=0 a=1 b=2 c=4 d=8");
}

#[test]
fn spans_begin_get_values_and_end_and_events_are_inside_of_them() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    with_layer(|| {
        let request =
            tracing::info_span!("request", path = "/a", status = tracing::field::Empty).entered();
        {
            let _query = tracing::debug_span!("query").entered();
            tracing::info!(name: "row", n = 1);
        }
        tracing::info!(name: "row", n = 2);
        request.record("status", 404);
        tracing::info!(name: "elsewhere", parent: None, n = 3);
        let other = tracing::info_span!(parent: &request, "other");
        other.follows_from(&request);
        tracing::info!(name: "row", parent: &other, n = 4);
        std::mem::forget(tracing::info_span!(parent: None, "open"));
    });
    let events = recorded(&folder);
    let of = |name: &str, nth: usize| {
        let mut found = events
            .iter()
            .filter(|event| event.name.rsplit(':').next() == Some(name));
        found
            .nth(nth)
            .unwrap_or_else(|| panic!("no {nth}. event {name}"))
    };
    let (request, query, other) = (of("request", 0), of("query", 0), of("other", 0));
    let id = |event: &common::Decoded| event.u64("span_id");
    assert_eq!(request.u64("span_parent"), 0);
    assert_eq!(query.u64("span_parent"), id(request));
    assert_eq!(other.u64("span_parent"), id(request));
    assert_eq!(of("row", 0).u64("span"), id(query));
    assert_eq!(of("row", 1).u64("span"), id(request));
    assert_eq!(of("row", 2).u64("span"), id(other));
    assert_eq!(of("elsewhere", 0).u64("span"), 0);
    assert_eq!(id(of("request_record", 0)), id(request));
    assert_eq!(of("request_record", 0).u64("status"), 404);
    assert_eq!(id(of("span_follows", 0)), id(other));
    let ended: Vec<u64> = (0..3).map(|nth| id(of("span_end", nth))).collect();
    assert_eq!(ended, [id(query), id(other), id(request)]);
    let ends = events
        .iter()
        .filter(|event| event.name == "outlive:span_end");
    assert_eq!(ends.count(), 3, "the one that was forgotten is open");
}

/// The recorder's own spans and those of `tracing` know of each other.
#[test]
fn spans_of_both_kinds_are_inside_of_each_other() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    with_layer(|| {
        let _a = tracing::info_span!("a").entered();
        let b = outlive::span!("mixed:b");
        {
            let _c = tracing::info_span!("c").entered();
        }
        tracing::info!(name: "inside", "of b");
        drop(b);
        tracing::info!(name: "inside", "of a");
    });
    let events = recorded(&folder);
    let of = |name: &str| {
        events
            .iter()
            .find(|event| event.name.ends_with(name))
            .unwrap()
    };
    let (a, b, c) = (of(":a"), of(":b"), of(":c"));
    assert_eq!(b.u64("span_parent"), a.u64("span_id"));
    assert_eq!(c.u64("span_parent"), b.u64("span_id"));
    let inside: Vec<_> = events
        .iter()
        .filter(|event| event.name.ends_with(":inside"))
        .collect();
    assert_eq!(inside[0].u64("span"), b.u64("span_id"));
    assert_eq!(inside[1].u64("span"), a.u64("span_id"));
}

/// The registry gives an id again as soon as its span has ended.
#[test]
fn no_two_spans_have_the_same_id() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    with_layer(|| {
        for _ in 0..100 {
            drop(tracing::info_span!("short"));
        }
    });
    let events = recorded(&folder);
    let begins = events.iter().filter(|event| event.name.ends_with(":short"));
    let mut ids: Vec<u64> = begins.map(|event| event.u64("span_id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

#[test]
fn a_span_that_is_switched_off_or_left_out_leaves_its_parent_in_place() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = common::builder(&folder)
        .events(["layer:outer", "layer:inside", "layer:filtered"])
        .filter("layer:filtered", "number == 0")
        .start()
        .unwrap();
    with_layer(|| {
        let _outer = tracing::info_span!("outer").entered();
        let _off = tracing::info_span!("off").entered();
        let _filtered = tracing::info_span!("filtered", number = 1u64).entered();
        tracing::info!(name: "inside", "of the outer one");
    });
    let events = recorded(&folder);
    let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["layer:outer", "layer:inside", "outlive:span_end"]);
    assert_eq!(events[1].u64("span"), events[0].u64("span_id"));
}

#[test]
fn an_env_filter_works_in_front_of_it() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    let emit = || {
        tracing::info!(name: "one", target: "wanted", "recorded");
        tracing::debug!(name: "two", target: "wanted", "too fine");
        tracing::error!(name: "three", target: "unwanted", "another target");
        let _span = tracing::info_span!(target: "spans", "request", user = "ada").entered();
        tracing::debug!(name: "four", target: "wanted", "in the span");
    };
    let filter = || EnvFilter::new("wanted=info,spans=info,[request{user=ada}]=debug");
    let whole = tracing_subscriber::registry()
        .with(filter())
        .with(outlive_tracing::layer());
    tracing::subscriber::with_default(whole, emit);
    let one_layer =
        tracing_subscriber::registry().with(outlive_tracing::layer().with_filter(filter()));
    tracing::subscriber::with_default(one_layer, emit);
    let events = recorded(&folder);
    let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
    let once = [
        "wanted:one",
        "spans:request",
        "wanted:four",
        "outlive:span_end",
    ];
    assert_eq!(names, [once, once].concat());
}

#[test]
fn records_of_log_come_through_the_bridge() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    // For the whole process; nobody else here uses it.
    tracing_log::LogTracer::init().unwrap();
    let line = line!() + 1;
    with_layer(|| log::warn!(target: "old::crate", "number {}", 7));
    let event = &recorded(&folder)[0];
    assert_eq!(event.name, "log:log_event");
    assert_eq!(event.u64("level"), 2);
    assert_eq!(event.text("message"), "number 7");
    assert_eq!(event.text("log_target"), "old::crate");
    assert_eq!(event.u64("log_line"), u64::from(line));
}

#[test]
fn a_text_that_does_not_fit_is_cut_and_marked() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    let long = "0123456789".repeat(10_000);
    with_layer(|| {
        tracing::info!(name: "cut", text = long, n = 7);
        tracing::info!(name: "cut_debug", text = ?long.as_bytes(), n = 8);
    });
    let texts = texts(&folder);
    assert!(
        texts[0].contains("text=0123") && texts[0].ends_with(" n=7 [cut]"),
        "{}",
        texts[0]
    );
    assert!(
        texts[1].contains("text=[48, 49") && texts[1].ends_with(" n=8 [cut]"),
        "{}",
        texts[1]
    );
}

/// Whatever a value's `Debug` does while its event is put together.
#[test]
fn a_value_that_records_while_it_is_formatted_is_recorded_too() {
    struct Noisy;
    impl std::fmt::Debug for Noisy {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            outlive::event!("noisy:inner", n = 1u32);
            f.write_str("noisy")
        }
    }
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    with_layer(|| tracing::info!(name: "outer", value = ?Noisy));
    let texts = texts(&folder);
    assert_eq!(
        texts,
        ["inner: n=1", "outer: level=INFO span=0 value=noisy"]
    );
}

#[test]
fn without_a_recorder_nothing_happens_and_a_later_one_records() {
    let (_turn, folder) = (turn(), Folder::new());
    let emit = |n: u64| {
        let _span = tracing::info_span!("around", n).entered();
        tracing::info!(name: "inside", n);
    };
    with_layer(|| {
        emit(1);
        let recorder = start(&folder);
        emit(2);
        drop(recorder);
        emit(3);
        let recorder = start(&folder);
        emit(4);
        drop(recorder);
    });
    let events = recorded(&folder);
    assert_eq!(events[0].u64("n"), 4);
    assert_eq!(events[1].u64("span"), events[0].u64("span_id"));
    assert_eq!(events.len(), 3);
}

/// Threads that come to the same call sites for the first time at the same time.
#[test]
fn threads_record_side_by_side() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    let subscriber = tracing_subscriber::registry().with(outlive_tracing::layer());
    let dispatch = Arc::new(tracing::Dispatch::new(subscriber));
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let dispatch = Arc::clone(&dispatch);
            scope.spawn(move || {
                tracing::dispatcher::with_default(&dispatch, || {
                    for n in 0..200u64 {
                        let _span = tracing::info_span!("work", thread).entered();
                        tracing::info!(name: "step", thread, n);
                    }
                });
            });
        }
    });
    let events = recorded(&folder);
    for thread in 0..8 {
        let begins = events
            .iter()
            .filter(|e| e.name == "layer:work" && e.u64("thread") == thread);
        let spans: Vec<_> = begins.map(|event| event.u64("span_id")).collect();
        let steps = events
            .iter()
            .filter(|e| e.name == "layer:step" && e.u64("thread") == thread);
        let steps: Vec<_> = steps.map(|e| (e.u64("n"), e.u64("span"))).collect();
        let expected: Vec<_> = (0..200).zip(spans).collect();
        assert_eq!(steps, expected);
    }
}
