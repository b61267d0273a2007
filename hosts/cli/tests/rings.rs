//! Both roles on both rings at toy size: from keys to a data set's score.
mod common;
use common::model::{TOY, write_encoder, write_sst2};
#[test]
fn make() {
    let folder = std::path::Path::new("/tmp/wt/cli-toy");
    write_encoder(&folder.join("model"), TOY);
    write_sst2(&folder.join("dev.tsv"), 7);
}
