//! Prints the first COUNT development sentences of SST-2 that fit the model's length: how `sst2-excerpt.tsv` is made.
//!
//! `cargo run --release -p veilformer-plain --example excerpt -- DATA MODEL COUNT`

use std::error::Error;
use std::path::Path;

use veilformer_plain::data::Task;
use veilformer_plain::model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, model, count] = arguments.as_slice() else {
        return Err("usage: excerpt DATA MODEL COUNT".into());
    };
    let model = Model::load(Path::new(model))?;
    println!("sentence\tlabel");
    let mut left: usize = count.parse()?;
    for row in Task::Sst2.read(&Path::new(data).join("glue/SST-2/dev.tsv"))? {
        if left > 0 && !model.tokenizer.encode(&row.sentence, None, model.config.length)?.truncated {
            println!("{}\t{}", row.sentence, row.label);
            left -= 1;
        }
    }
    Ok(())
}
