//! A program that records its orders and then dies.
//!
//!     cargo run -p outlive --example shop; outlive show shop

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recorder = outlive::Recorder::builder("shop").version("1.0").start()?;
    if let Some(previous) = recorder.previous() {
        println!("the run before ended with: {}", previous.verdict());
    }
    for id in 1..=5u64 {
        outlive::event!(
            "shop:order",
            id = id,
            customer = "Ada",
            total = 9.5 * id as f64
        );
    }
    std::process::abort();
}
