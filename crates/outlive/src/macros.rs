//! The macros that record.

/// Records an event: `event!("system:name", field = value, ...)`.
///
/// The name is `system:name`, or `name` alone: then the system is the package's name. A value may be
/// an integer, a float, a `bool`, a text, a slice or an array of integers: whatever is
/// [`Field`](crate::Field). The first time that an event is recorded, its format is written into the
/// region's catalog.
///
/// Values are not evaluated while the event is switched off, but for the first time that a place in the
/// program is reached: only then it is found out whether its event is on. Without a
/// [`Recorder`](crate::Recorder) nothing happens, and nothing is evaluated.
///
/// ```
/// let path = String::from("/index.html");
/// outlive::event!("http:request", status = 200u16, bytes = 5120u64, path = path);
/// ```
///
/// A text or slice that does not fit the 4080 bytes of a sub-buffer is cut; readers mark the event.
#[macro_export]
macro_rules! event {
    ($name:literal $(, $field:ident = $value:expr)* $(,)?) => {{
        const _: () = assert!(
            $crate::__private::is_event_name($name),
            "an event is called `system:name` or `name`: letters, digits and _, no digit first"
        );
        static SITE: $crate::__private::Site = $crate::__private::Site::new(
            env!("CARGO_PKG_NAME"),
            $name,
            &[$(stringify!($field)),*],
        );
        if SITE.is_enabled() {
            $crate::__private::record(&SITE, &($(&$value,)*));
        }
    }};
}

/// Begins a span: `let _span = span!("system:name", field = value, ...)`. It ends when the guard is
/// dropped. Name and fields are those of [`event!`]. A span whose beginning is not recorded (switched off,
/// left out by a filter, no lane free) is none: what is inside of it is inside of its parent, and it has
/// no end.
///
/// ```
/// fn answer(path: &str) {
///     let _request = outlive::span!("http:request", path = path);
///     let _query = outlive::span!("db:query");
///     // Whatever dies here was inside of both.
/// }
/// # answer("/");
/// ```
#[macro_export]
macro_rules! span {
    ($name:literal $(, $field:ident = $value:expr)* $(,)?) => {{
        const _: () = assert!(
            $crate::__private::is_event_name($name),
            "a span is called `system:name` or `name`: letters, digits and _, no digit first"
        );
        static SITE: $crate::__private::Site = $crate::__private::Site::new(
            env!("CARGO_PKG_NAME"),
            $name,
            &["span_id", "span_parent" $(, stringify!($field))*],
        );
        if SITE.is_enabled() {
            let (id, parent) = $crate::__private::new_span();
            if $crate::__private::record(&SITE, &(id, parent, $(&$value,)*)) {
                $crate::Span::begun(id, parent)
            } else {
                $crate::Span::none()
            }
        } else {
            $crate::Span::none()
        }
    }};
}
