//! The folded model computes what the polynomial executor computes, on models of every shape.

use proptest::prelude::*;
use veilformer::transformer::{Config, Loss, Site};
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::fold::fold;
use veilformer_plain::parameters::Parameters;
use veilformer_plain::random::Random;
use veilformer_plain::run::{Example, embed, observe};
use veilformer_plain::sites::{Approximations, Budget};
use veilformer_plain::tokenizer::Sequence;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn folded_is_the_polynomial_executor(
        seed in 0u64..10_000, layers in 1usize..4, first_norm: bool, affine: bool, rank in 0usize..3, lora in 0usize..3
    ) {
        let config = Config {
            layers, width: 8, heads: 2, length: 5, feed_forward: 6, head_rank: rank, head_hidden: 4, classes: 2,
            vocabulary: 20, lora_rank: lora, first_norm, embedding_affine: affine, norm_epsilon: 1e-3,
            loss: Loss::CrossEntropy,
        };
        config.validate().unwrap();
        let mut parameters = Parameters::<f32>::random(&config, seed);
        let mut random = Random::new(seed, 7);
        parameters.values_mut().iter_mut().for_each(|w| *w += 0.1 * random.normal() as f32);
        let tokens = (0..config.length).map(|_| (random.next_u64() % 20) as u32).collect();
        let example = Example { sequence: Sequence { tokens, used: 3, truncated: false }, label: 0.0 };
        let data = std::slice::from_ref(&example);

        let wide = parameters.convert::<f64>();
        let ranges = observe(&config, &wide, data, Functions::Exact).unwrap().ranges;
        let budget = |site| Budget { degree: 15, squarings: u32::from(matches!(site, Site::Kernel(_))), margin: 1.6 };
        let table = Approximations::calibrate(&config, &ranges, budget).unwrap();
        let polynomial = observe(&config, &wide, data, Functions::Polynomial(&table)).unwrap();

        let folded = fold(&config, &parameters, &table).unwrap();
        let mut executor = PlainExecutor::new(&config, &wide, Functions::Exact);
        let input = embed(&mut executor, &config, &wide, &example.sequence.tokens).unwrap();
        let mask: Vec<f64> = example.sequence.mask().collect();
        let logits = folded.evaluate(&input, &mask);
        let size = polynomial.logits[0].iter().fold(1.0f64, |m, y| m.max(y.abs()));
        for (a, b) in logits.iter().zip(&polynomial.logits[0]) {
            prop_assert!((a - b).abs() < 1e-9 * size, "{a} {b}");
        }
    }
}
