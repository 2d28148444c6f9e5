//! placeholder

#[cfg(test)]
mod diagnostic;

fn main() {}
