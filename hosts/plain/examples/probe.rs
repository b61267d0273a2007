//! Prints the probe loss of a pre-trained model: what `pretrain.py` and `veilformer pretrain` print when they are done.
//!
//! `cargo run --release -p veilformer-plain --example probe -- MODEL WORK`
//! where WORK is the folder the model was pre-trained in.

use std::error::Error;
use std::fs;
use std::path::Path;

use veilformer_plain::model::{Model, Reached};
use veilformer_plain::pretrain::{MASK, probe};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, work] = arguments.as_slice() else {
        return Err("usage: probe MODEL WORK".into());
    };
    let model = Model::load(Path::new(model))?;
    let bytes = fs::read(Path::new(work).join("corpus.u16"))?;
    let tokens: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    let mask = model.tokenizer.piece(MASK).ok_or("the vocabulary has no [MASK]")?;
    let loss = probe(&model.config, &model.parameters, mask, &tokens, 64);
    println!("probe loss {loss:.6}");
    if let Reached::Pretrained { probe_loss, .. } = model.training.reached {
        println!("its config.json says {probe_loss:.6}");
    }
    Ok(())
}
