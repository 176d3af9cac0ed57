//! predict MODEL EDGES: what a trained twin says of people, from Rust. The same as
//! examples/c/predict.c, which says what EDGES is.

mod dtwin;

use std::process::ExitCode;

use dtwin::Model;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, edges] = arguments.as_slice() else {
        eprintln!("usage: predict MODEL EDGES");
        return ExitCode::from(2);
    };
    match predict(model, edges) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn predict(folder: &str, path: &str) -> Result<(), String> {
    let model = Model::load(folder)?;
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let edges: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let (sizes, task, name) = (model.sizes()?, model.task_sizes(0)?, model.task(0));
    let n_effects = (task.n_contrasts * sizes.n_bold_regions) as usize;
    if n_effects == 0 {
        return Err(format!("{name} has no contrast in a region: this example needs one"));
    }
    let n_subjects = edges.len() / sizes.n_edges as usize;
    let (rt_s, contrasts) = model.predict(&name, &edges)?;

    // How the first contrast in the first region would move with each edge.
    let mut d_contrasts = vec![0.0; n_subjects * n_effects];
    for subject in d_contrasts.chunks_exact_mut(n_effects) {
        subject[0] = 1.0;
    }
    let d_edges = model.vjp(&name, &edges, &d_contrasts)?;

    println!("subject\tquantity\twhere\tvalue");
    for s in 0..n_subjects {
        let rts = &rt_s[s * task.n_trials as usize..][..task.n_trials as usize];
        let mean = rts.iter().map(|&rt| f64::from(rt)).sum::<f64>() / rts.len() as f64;
        println!("{s}\tmean_rt_s\t{name}\t{mean:.6}");
        for k in 0..task.n_contrasts {
            for q in 0..sizes.n_bold_regions {
                let effect = contrasts[s * n_effects + (k * sizes.n_bold_regions + q) as usize];
                let (contrast, region) = (model.contrast(0, k), model.bold_region(q));
                println!("{s}\t{contrast}\t{region}\t{effect:.6}");
            }
        }
        let gradient = &d_edges[s * sizes.n_edges as usize..][..sizes.n_edges as usize];
        let length: f64 = gradient.iter().map(|&d| f64::from(d) * f64::from(d)).sum();
        println!("{s}\tsquared_gradient\tedges\t{length:.6}");
    }
    Ok(())
}
