//! A program that records an order and then dies.
//!
//!     cargo run -p outlive --example shop; outlive show shop

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recorder = outlive::Recorder::builder("shop").version("1.0").start()?;
    if let Some(previous) = recorder.previous() {
        println!("the run before ended with: {}", previous.verdict());
    }
    outlive::event!("shop:order", id = 7u64, items = 3u32, customer = "Ada");
    std::process::abort();
}
