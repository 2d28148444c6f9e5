//! A program that records an order and then dies.
//!
//!     cargo run -p outlive --example shop; outlive last shop

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recorder = outlive::Recorder::builder("shop").version("1.0").start()?;
    if let Some(previous) = recorder.previous() {
        println!("the run before ended with: {}", previous.verdict());
    }
    let _request = outlive::span!("http:request", path = "/checkout");
    outlive::event!("shop:order", id = 7u64, items = 3u32, customer = "Ada");
    let stock: [u32; 3] = [4, 0, 9];
    let _ = std::panic::catch_unwind(|| stock[std::hint::black_box(7)]);
    std::process::abort();
}
