//! Lists the events of an `events` folder whose `print fmt` is not evaluated, and why.
//!
//! ```text
//! cargo run -p outlive-event --example print_fmt_coverage -- /sys/kernel/tracing/events
//! ```

use outlive_event::{Catalog, CatalogError};

fn main() -> Result<(), CatalogError> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or("/sys/kernel/tracing/events".to_owned());
    let catalog = Catalog::from_events_dir(path)?;
    let mut total = 0;
    let mut skipped = 0;
    for event in catalog.events() {
        total += 1;
        if let Err(error) = event.program() {
            skipped += 1;
            let place = event.print_fmt.get(error.span.clone()).unwrap_or_default();
            let place: String = place.chars().take(40).collect();
            println!(
                "{}:{}: {} (`{place}`)",
                event.system, event.name, error.reason
            );
        }
    }
    for error in catalog.skipped_formats() {
        println!("{error}");
    }
    println!("{total} events, {skipped} not evaluated");
    println!(
        "{} format files do not parse",
        catalog.skipped_formats().len()
    );
    Ok(())
}
