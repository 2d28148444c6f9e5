//! Lists the events of an `events` folder whose `print fmt` is not evaluated, and why. A folder of
//! BTF files tells the values of names.
//!
//! ```text
//! cargo run -p outlive-event --example print_fmt_coverage -- /sys/kernel/tracing/events /sys/kernel/btf
//! ```

use outlive_event::{Catalog, CatalogError};

fn main() -> Result<(), CatalogError> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or("/sys/kernel/tracing/events".to_owned());
    let mut catalog = Catalog::from_events_dir(path)?;
    if let Some(btf) = std::env::args().nth(2) {
        catalog.read_btf(btf)?;
    }
    let mut total = 0;
    let mut skipped = 0;
    for event in catalog.events() {
        total += 1;
        if let Err(error) = event.program(catalog.constants()) {
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
